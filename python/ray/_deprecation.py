"""The warning for things that will go away. Public as `ray.util.annotations.RayDeprecationWarning`."""


class RayDeprecationWarning(DeprecationWarning):
    """Something of Ray's public surface will go away."""

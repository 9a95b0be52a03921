"""What goes wrong with rules."""

from __future__ import annotations

from ray.exceptions import RayError


class ChaosRuleError(RayError, ValueError):
    """A rule makes no sense; the text names the rule and the field."""


class NothingToKillError(RayError, TimeoutError):
    """Nothing that the rule applies to showed up in time; the text says what there was."""

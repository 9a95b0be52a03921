"""joblib on the cluster: `register_ray()`, then `joblib.parallel_backend("ray")`."""


def register_ray() -> None:
    """Registers the backend "ray".

    Raises:
        ImportError: joblib is missing or too old.
    """
    try:
        from joblib.parallel import register_parallel_backend

        from ray.util.joblib.ray_backend import RayBackend
    except ImportError as e:
        raise ImportError("To use the ray backend you must install joblib>=1.3: pip install -U joblib.") from e
    register_parallel_backend("ray", RayBackend)

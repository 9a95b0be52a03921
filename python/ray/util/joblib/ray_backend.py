"""joblib's backend that runs batches on a `ray.util.multiprocessing.Pool`."""

from __future__ import annotations

from typing import Any

from joblib._parallel_backends import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    PoolManagerMixin,
    SequentialBackend,
)

from ray.api import cluster_resources, init, is_initialized
from ray.util.multiprocessing import Pool


class RayBackend(PoolManagerMixin, AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Option `ray_remote_args`: options of the actors that run the batches."""

    supports_retrieve_callback = True
    supports_return_generator = False

    def __init__(self, ray_remote_args: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._remote_args = ray_remote_args

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many actors: negative numbers count back from the cluster's CPUs."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if not is_initialized():
            init()
        cpus = max(int(cluster_resources().get("CPU", 0)), 1)
        return max(cpus + 1 + n_jobs, 1) if n_jobs < 0 else min(n_jobs, cpus)

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **_options: Any
    ) -> int:
        """Starts the pool; without parallelism joblib runs the calls itself."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self._pool = Pool(n_jobs, ray_remote_args=self._remote_args)
        self.parallel = parallel
        return n_jobs

    def terminate(self) -> None:
        """Ends the pool."""
        super().terminate()
        self.reset_batch_stats()

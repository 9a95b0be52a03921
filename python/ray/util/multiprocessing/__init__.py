"""`multiprocessing.Pool` on the cluster: replace the import, and the pool's processes are actors."""

from multiprocessing import JoinableQueue as JoinableQueue
from multiprocessing import TimeoutError as TimeoutError

from ray.util.multiprocessing.pool import Pool as Pool

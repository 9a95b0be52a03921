"""Old name of `ray.util.multiprocessing`."""

from ray.util.multiprocessing import Pool as Pool
from ray.util.multiprocessing import TimeoutError as TimeoutError

"""Breakpoints inside tasks and actors: see `ray.util.rpdb`."""

from ray.util.rpdb import _driver_set_trace as _driver_set_trace
from ray.util.rpdb import _post_mortem as _post_mortem
from ray.util.rpdb import set_trace as set_trace

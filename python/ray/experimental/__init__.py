"""Experimental public helpers."""

from ray.experimental.locations import get_local_object_locations as get_local_object_locations
from ray.experimental.locations import get_object_locations as get_object_locations

"""`ray.types`: what programs annotate their values with."""

from ray._raylet import ObjectRef as ObjectRef

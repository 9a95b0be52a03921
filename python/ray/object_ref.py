"""`ObjectRef` and the generators of them, for those who look for them here."""

from ray._raylet import DynamicObjectRefGenerator as DynamicObjectRefGenerator
from ray._raylet import ObjectRef as ObjectRef
from ray._raylet import ObjectRefGenerator as ObjectRefGenerator

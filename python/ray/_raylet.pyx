# cython: language_level=3
"""The extension's public names, which programs import from here. Everything is defined in `ray._core`."""
from ray._core.generator import DynamicObjectRefGenerator, ObjectRefGenerator
from ray._core.ids import (
    ActorClassID,
    ActorID,
    BaseID,
    ClusterID,
    FunctionID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)
from ray._core.object_ref import ObjectRef
from ray._core.worker import CoreWorker

ObjectID = ObjectRef
StreamingObjectRefGenerator = ObjectRefGenerator
STREAMING_GENERATOR_RETURN = -2

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
RESOURCE_UNIT_SCALING = 10000
OPTIMIZED = True

# Labels that nodes have by themselves.
RAY_NODE_ID_KEY = "ray.io/node-id"
RAY_NODE_ACCELERATOR_TYPE_KEY = "ray.io/accelerator-type"
RAY_NODE_GROUP_KEY = "ray.io/node-group"
RAY_NODE_MARKET_TYPE_KEY = "ray.io/market-type"
RAY_NODE_REGION_KEY = "ray.io/availability-region"
RAY_NODE_ZONE_KEY = "ray.io/availability-zone"

from typing import Final

from ray._core.generator import DynamicObjectRefGenerator as DynamicObjectRefGenerator
from ray._core.generator import ObjectRefGenerator as ObjectRefGenerator
from ray._core.ids import ActorClassID as ActorClassID
from ray._core.ids import ActorID as ActorID
from ray._core.ids import BaseID as BaseID
from ray._core.ids import ClusterID as ClusterID
from ray._core.ids import FunctionID as FunctionID
from ray._core.ids import JobID as JobID
from ray._core.ids import NodeID as NodeID
from ray._core.ids import PlacementGroupID as PlacementGroupID
from ray._core.ids import TaskID as TaskID
from ray._core.ids import UniqueID as UniqueID
from ray._core.ids import WorkerID as WorkerID
from ray._core.object_ref import ObjectRef as ObjectRef
from ray._core.worker import CoreWorker as CoreWorker

ObjectID = ObjectRef
StreamingObjectRefGenerator = ObjectRefGenerator
STREAMING_GENERATOR_RETURN: Final = -2
RESOURCE_UNIT_SCALING: Final = 10000
OPTIMIZED: Final = True
RAY_NODE_ID_KEY: Final = "ray.io/node-id"
RAY_NODE_ACCELERATOR_TYPE_KEY: Final = "ray.io/accelerator-type"
RAY_NODE_GROUP_KEY: Final = "ray.io/node-group"
RAY_NODE_MARKET_TYPE_KEY: Final = "ray.io/market-type"
RAY_NODE_REGION_KEY: Final = "ray.io/availability-region"
RAY_NODE_ZONE_KEY: Final = "ray.io/availability-zone"

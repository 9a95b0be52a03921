"""Ray Core: tasks, actors and objects, from a laptop to a cluster.

    import ray

    @ray.remote
    def square(x):
        return x * x

    print(ray.get([square.remote(i) for i in range(4)]))

This module only re-exports: lifecycle and calls from `ray.api`, ids and refs from `ray._raylet`, errors in
`ray.exceptions`.
"""

from ray import actor as actor
from ray import cloudpickle as cloudpickle
from ray import exceptions as exceptions
from ray import experimental as experimental
from ray import util as util
from ray._proxies import lookup as __getattr__  # noqa: F401  # called for what is not here
from ray._raylet import ActorClassID as ActorClassID
from ray._raylet import ActorID as ActorID
from ray._raylet import ClusterID as ClusterID
from ray._raylet import DynamicObjectRefGenerator as DynamicObjectRefGenerator
from ray._raylet import FunctionID as FunctionID
from ray._raylet import JobID as JobID
from ray._raylet import NodeID as NodeID
from ray._raylet import ObjectID as ObjectID
from ray._raylet import ObjectRef as ObjectRef
from ray._raylet import ObjectRefGenerator as ObjectRefGenerator
from ray._raylet import PlacementGroupID as PlacementGroupID
from ray._raylet import TaskID as TaskID
from ray._raylet import UniqueID as UniqueID
from ray._raylet import WorkerID as WorkerID
from ray._runtime.logging_config import LoggingConfig as LoggingConfig
from ray._runtime.system_config import CONFIG as _config  # noqa: F401
from ray._timeline import timeline as timeline
from ray._version import __commit__ as __commit__
from ray._version import __version__ as __version__
from ray.actor import method as method
from ray.api import RESTORE_WORKER_MODE as RESTORE_WORKER_MODE
from ray.api import SCRIPT_MODE as SCRIPT_MODE
from ray.api import SPILL_WORKER_MODE as SPILL_WORKER_MODE
from ray.api import WORKER_MODE as WORKER_MODE
from ray.api import available_resources as available_resources
from ray.api import cancel as cancel
from ray.api import cluster_resources as cluster_resources
from ray.api import get as get
from ray.api import get_actor as get_actor
from ray.api import get_gpu_ids as get_gpu_ids
from ray.api import init as init
from ray.api import is_initialized as is_initialized
from ray.api import kill as kill
from ray.api import nodes as nodes
from ray.api import put as put
from ray.api import remote as remote
from ray.api import shutdown as shutdown
from ray.api import wait as wait
from ray.client_builder import ClientBuilder as ClientBuilder
from ray.client_builder import client as client
from ray.cross_language import Language as Language
from ray.cross_language import java_actor_class as java_actor_class
from ray.cross_language import java_function as java_function
from ray.runtime_context import get_runtime_context as get_runtime_context

# Those start Ray by themselves if need be, and those that do not.
AUTO_INIT_APIS = {
    "cancel",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "kill",
    "put",
    "wait",
}
NON_AUTO_INIT_APIS = {
    "ClientBuilder",
    "Language",
    "LoggingConfig",
    "SCRIPT_MODE",
    "WORKER_MODE",
    "__version__",
    "_config",
    "available_resources",
    "client",
    "cluster_resources",
    "init",
    "is_initialized",
    "java_actor_class",
    "java_function",
    "method",
    "nodes",
    "remote",
    "shutdown",
    "timeline",
}
__all__ = sorted(AUTO_INIT_APIS | NON_AUTO_INIT_APIS)
__all__ += ["ActorClassID", "ActorID", "ClusterID", "FunctionID", "JobID", "NodeID", "ObjectID", "ObjectRef"]
__all__ += ["ObjectRefGenerator", "PlacementGroupID", "TaskID", "UniqueID", "WorkerID"]
__all__ += ["cloudpickle", "exceptions", "util"]

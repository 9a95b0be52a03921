"""The public names of Ray 2.60 that are here, and the old and internal ones that programs import: none may vanish."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

import ray

SURFACE = """
ray: init shutdown is_initialized remote get put wait kill cancel get_actor method get_gpu_ids nodes
    cluster_resources available_resources timeline client get_runtime_context ClientBuilder Language
    LoggingConfig SCRIPT_MODE WORKER_MODE SPILL_WORKER_MODE RESTORE_WORKER_MODE java_function java_actor_class
    workflow _config __version__ __commit__ worker state ray_constants serialization ActorClassID ActorID
    ClusterID FunctionID JobID NodeID ObjectID ObjectRef PlacementGroupID TaskID UniqueID WorkerID
    AUTO_INIT_APIS NON_AUTO_INIT_APIS actor exceptions util experimental cloudpickle remote_function
    runtime_context job_config cross_language cluster_utils ObjectRefGenerator DynamicObjectRefGenerator
ray._version: version commit
ray.cross_language: java_function java_actor_class cpp_function cpp_actor_class
ray.runtime_context: RuntimeContext get_runtime_context
ray.runtime_context.RuntimeContext: get_job_id get_node_id get_worker_id get_session_name get_temp_dir
    get_task_id get_task_name get_task_function_name get_actor_id get_actor_name namespace
    was_current_actor_reconstructed get_placement_group_id should_capture_child_tasks_in_placement_group
    get_assigned_resources get_runtime_env_string runtime_env current_actor gcs_address get_accelerator_ids
    get_node_labels is_canceled get job_id node_id task_id actor_id current_placement_group_id
    get_resource_ids
ray.ObjectRef: hex binary is_nil size from_binary from_hex task_id job_id owner_address call_site
    tensor_transport future __await__ as_future _on_completed _on_ready _ready nil from_random
    redis_shard_hash
ray.ObjectRefGenerator: completed next_ready is_finished send throw close asend athrow aclose _next_sync
    _next_async _get_next_ref_n _consume_next_ref_n _stream_exhausted _get_next_object_id_binary
ray._private.worker: global_worker _global_node _post_init_hooks _mode blocking_get_inside_async_warned
    SCRIPT_MODE WORKER_MODE
ray._raylet: STREAMING_GENERATOR_RETURN RAY_NODE_ID_KEY ObjectRefGenerator RESOURCE_UNIT_SCALING OPTIMIZED
    PlacementGroupID ObjectRef NodeID
ray.remote_function: RemoteFunction _task_launch_hook
ray.actor: ActorClass ActorHandle ActorMethod exit_actor ActorClassInheritanceException _actor_launch_hook
ray.exceptions: RayError CrossLanguageError TaskCancelledError RayTaskError LocalRayletDiedError
    WorkerCrashedError RayActorError ActorDiedError ActorUnavailableError RaySystemError
    StreamingGeneratorReplayInconsistentError RayChannelError RayChannelTimeoutError RayCgraphCapacityExceeded
    RayDirectTransportError AuthenticationError UserCodeException ObjectStoreFullError OutOfDiskError
    OutOfMemoryError NodeDiedError ObjectLostError ObjectFetchTimedOutError ReferenceCountingAssertionError
    ObjectFreedError OwnerDiedError ObjectReconstructionFailedError RpcError GetTimeoutError
    PlasmaObjectNotAvailable AsyncioActorExit RuntimeEnvSetupError TaskPlacementGroupRemoved
    ActorPlacementGroupRemoved PendingCallsLimitExceeded TaskUnschedulableError ActorUnschedulableError
    ObjectRefStreamEndOfStreamError OufOfBandObjectRefSerializationException UnserializableException
    ActorAlreadyExistsError ActorHandleNotFoundError
ray.util: ActorPool queue as_completed map_unordered list_named_actors get_node_ip_address
    get_node_instance_id inspect_serializability register_serializer deregister_serializer log_once
    disable_log_once_globally enable_periodic_logging debug annotations accelerators tpu rpdb pdb timer
    actor_group iter iter_metrics placement_group PlacementGroup remove_placement_group get_placement_group
    get_current_placement_group placement_group_table scheduling_strategies metrics multiprocessing joblib
    client connect disconnect num_connected_contexts serialization
ray.util.debug: log_once reset_log_once disable_log_once_globally enable_periodic_logging
ray.util.annotations: PublicAPI DeveloperAPI Deprecated RayDeprecationWarning
ray.util.accelerators: NVIDIA_TESLA_V100 NVIDIA_TESLA_P100 NVIDIA_TESLA_T4 NVIDIA_TESLA_P4 NVIDIA_TESLA_K80
    NVIDIA_TESLA_A10G NVIDIA_L4 NVIDIA_L40S NVIDIA_A100 NVIDIA_H100 NVIDIA_H200 NVIDIA_H20 NVIDIA_B200
    NVIDIA_GB200 AMD_INSTINCT_MI100 AMD_INSTINCT_MI250x AMD_INSTINCT_MI210 AMD_INSTINCT_MI300x GOOGLE_TPU_V2
    GOOGLE_TPU_V3 GOOGLE_TPU_V4 GOOGLE_TPU_V5P GOOGLE_TPU_V5LITEPOD GOOGLE_TPU_V6E GOOGLE_TPU_V7X INTEL_GAUDI
    INTEL_MAX_1550 INTEL_MAX_1100 AWS_NEURON_CORE NVIDIA_A100_40G NVIDIA_A100_80G HUAWEI_NPU_910B
ray.util.metrics: Counter Gauge Histogram Metric
ray.util.queue: Queue Empty Full _QueueActor
ray.util.queue.Queue: put get put_async get_async put_nowait get_nowait put_nowait_batch get_nowait_batch size
    qsize empty full shutdown __len__
ray.util.actor_pool: ActorPool
ray.util.actor_pool.ActorPool: map map_unordered submit has_next get_next get_next_unordered has_free pop_idle
    push
ray.util.scheduling_strategies: PlacementGroupSchedulingStrategy NodeAffinitySchedulingStrategy
    NodeLabelSchedulingStrategy In NotIn Exists DoesNotExist
ray.util.placement_group: PlacementGroup placement_group remove_placement_group get_placement_group
    get_current_placement_group placement_group_table
ray.util.multiprocessing: Pool TimeoutError
ray.util.multiprocessing.pool: Pool AsyncResult
ray.util.multiprocessing.Pool: apply apply_async map map_async starmap starmap_async imap imap_unordered close
    terminate join
ray.util.joblib: register_ray
ray.util.client: ray num_connected_contexts
ray.util.client.ray: is_connected
ray.experimental: get_object_locations get_local_object_locations internal_kv tqdm_ray locations
    dynamic_resources queue multiprocessing
ray.experimental.internal_kv: internal_kv_get_gcs_client _internal_kv_get _internal_kv_put _internal_kv_del
    _internal_kv_list _internal_kv_exists _internal_kv_initialized
ray.experimental.tqdm_ray: tqdm safe_print instance
ray.experimental.dynamic_resources: set_resource
ray._private.state: state total_resources_per_node available_resources_per_node actors
ray._private.test_utils: wait_for_condition SignalActor
ray._private.services: get_node_ip_address
ray._private.utils: binary_to_hex hex_to_binary binary_to_object_ref binary_to_task_id ensure_str get_num_cpus
    estimate_available_memory get_user is_main_thread INT32_MAX
ray._private.client_mode_hook: client_mode_hook client_mode_wrap disable_client_hook enable_client_mode
    client_mode_should_convert
ray.util.state: list_actors list_jobs list_nodes list_objects list_placement_groups list_tasks list_workers get_actor
    get_job get_node get_objects get_placement_group get_task get_worker summarize_actors summarize_objects
    summarize_tasks explain
ray.util.state.api: get_actor list_actors list_nodes list_tasks get_task get_log list_logs
ray.experimental.state.api: get_actor list_actors list_nodes list_tasks get_task
ray.cluster_utils: Cluster
ray.runtime_env: RuntimeEnv RuntimeEnvConfig
ray.job_config: JobConfig
ray.util.iter: from_items from_range from_iterators from_actors ParallelIterator LocalIterator
    ParallelIteratorWorker
ray.util.timer: _Timer
ray.util.actor_group: ActorGroup
ray.util.rpdb: set_trace _driver_set_trace _post_mortem
ray.util.pdb: set_trace
"""


def _rows() -> list[tuple[str, list[str]]]:
    lines = re.sub(r"\n +", " ", SURFACE).strip().splitlines()
    return [(head, names.split()) for head, _, names in (line.partition(":") for line in lines)]


def _home(path: str) -> Any:
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for name in parts[n:]:
            found = getattr(found, name)
        return found
    raise AssertionError(path)


def _has(home: Any, path: str, name: str) -> bool:
    if isinstance(home, type):
        return hasattr(home, name)  # properties are not to be read
    try:
        getattr(home, name)
    except AttributeError:
        try:
            importlib.import_module(f"{path}.{name}")
        except ModuleNotFoundError:
            return False
    except RuntimeError:  # ray.workflow says that it was removed
        pass
    return True


@pytest.mark.parametrize(("path", "names"), _rows(), ids=lambda value: value if isinstance(value, str) else "")
def test_names_are_there(path: str, names: list[str]) -> None:
    home = _home(path)
    assert [name for name in names if not _has(home, path, name)] == []


def test_errors_and_handles_say_that_they_are_public() -> None:
    for error in ray.exceptions.RAY_EXCEPTION_TYPES:
        assert error.__module__ == "ray.exceptions"
    assert ray.actor.ActorHandle.__module__ == ray.actor.ActorMethod.__module__ == "ray.actor"

"""`ray.init` and `ray.shutdown`: which cluster a program joins, and what it says of itself. Public in `ray.api`."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from ray import options as opts
from ray._context import ClientContext, RayContext, address_info
from ray._runtime import session as sessions
from ray._runtime.logging_config import LoggingConfig
from ray.job_config import JobConfig

if TYPE_CHECKING:
    from ray._runtime.connect import Attachment
    from ray._runtime.session import Session

logger = logging.getLogger("ray")

_INIT_LOCK = threading.RLock()  # two threads must not start two clusters

# Arguments of Ray's init about what this engine does not have; taken so that programs run unchanged.
_ACCEPTED = {
    "_enable_object_reconstruction",
    "_plasma_directory",
    "_node_ip_address",
    "_driver_object_store_memory",
    "_redis_username",
    "_redis_password",
    "_metrics_export_port",
    "_system_config",
    "_tracing_startup_hook",
    "_skip_env_hook",
}
_CLIENT_ONLY = ("allow_multiple", "_credentials")  # for addresses of the scheme ray://
_OWN_CLUSTER_ONLY = (
    "num_cpus",
    "num_gpus",
    "resources",
    "labels",
    "object_store_memory",
    "_memory",
    "_node_name",
    "_temp_dir",
    "object_spilling_directory",
)


def init(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    object_store_memory: int | None = None,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    include_dashboard: bool | None = None,
    dashboard_host: str = "127.0.0.1",
    dashboard_port: int | None = None,
    job_config: JobConfig | None = None,
    configure_logging: bool = True,
    logging_level: int | str = "info",
    logging_format: str | None = None,
    logging_config: LoggingConfig | None = None,
    log_to_driver: bool | None = None,
    namespace: str | None = None,
    runtime_env: dict[str, Any] | None = None,
    enable_resource_isolation: bool = False,
    cgroup_path: str | None = None,
    system_reserved_cpu: float | None = None,
    system_reserved_memory: int | None = None,
    proxy_server_url: str | None = None,
    **kwargs: Any,
) -> RayContext:
    """Connects this process to a cluster as a driver; starts a local one if there is none.

    Args:
        address: None: RAY_ADDRESS, else the cluster that `ray start` made on this machine, else start a local one.
            "local": always start one. "auto": RAY_ADDRESS or a running cluster on this machine, never start.
            "host:port": the cluster whose GCS listens there, by way of its node on this machine if it has one.
            "ray://host:port": that cluster, by way of a raylet of this driver's own.
        num_cpus, num_gpus, resources, labels, object_store_memory: of a new node; detected when None.
            `object_store_memory` is in bytes.
        namespace: of the named actors of this job; a random one if None.
        log_to_driver: whether what workers print appears here.
        include_dashboard, dashboard_host, dashboard_port, enable_resource_isolation, cgroup_path, system_reserved_cpu,
            system_reserved_memory, proxy_server_url: of what this engine does not have; taken so that programs run
            unchanged.

    Raises:
        RuntimeError: already connected (unless `ignore_reinit_error`), or an unknown argument.
        ConnectionError: there is no cluster at `address`.
        AuthenticationError: it does not accept the token, or there is none.
        ValueError, TypeError: a bad argument, or sizes of a node where a cluster runs already.
    """
    from ray._runtime import driver_process

    with _INIT_LOCK:
        current = sessions.current_session()
        if current is not None:
            if not ignore_reinit_error:
                raise RuntimeError(
                    "Maybe you called ray.init twice by accident? This error can be suppressed by passing in "
                    "'ignore_reinit_error=True' or by calling 'ray.shutdown()' prior to 'ray.init()'."
                )
            logger.info("Calling ray.init() again after it has already been called.")
            return _context(current)
        given = {
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "resources": resources,
            "labels": labels,
            "object_store_memory": object_store_memory,
        }
        isolation = {
            "cgroup_path": cgroup_path,
            "system_reserved_cpu": system_reserved_cpu,
            "system_reserved_memory": system_reserved_memory,
        }
        alone = [name for name, value in isolation.items() if value is not None]
        if alone and not enable_resource_isolation:
            raise ValueError(f"{', '.join(alone)} cannot be set without enable_resource_isolation=True.")
        _check_init(address, given, local_mode, namespace, kwargs)
        if job_config is not None and not isinstance(job_config, JobConfig):
            raise TypeError(f"job_config must be a ray.job_config.JobConfig, got {job_config!r}.")
        opts.check_runtime_env(_job_runtime_env(job_config, runtime_env))
        own = {key: kwargs.pop(key) for key in _OWN_CLUSTER_ONLY if key in kwargs}
        given.update(own)
        if configure_logging:
            _configure_logging(logging_level, logging_format)
        driver_process.prepare()
        system_config = kwargs.get("_system_config") or {}
        logging_config = _logging_config(logging_config)
        config = _job_config(job_config, runtime_env, logging_config)
        session = _connect(address, given, namespace, log_to_driver, config, system_config)
        if logging_config is not None:
            logging_config.apply()
        old_names = sys.modules.get("ray._private.worker")  # programs that registered hooks have loaded it
        for hook in old_names._post_init_hooks if old_names is not None else ():
            hook()
        return _context(session)


def _logging_config(given: LoggingConfig | None) -> LoggingConfig | None:
    if given is not None and not isinstance(given, LoggingConfig):
        raise TypeError(f"logging_config must be a ray.LoggingConfig, got {given!r}.")
    encoding = os.environ.get("RAY_LOGGING_CONFIG_ENCODING")
    return LoggingConfig(encoding=encoding) if given is None and encoding else given


def _check_client_only(address: Any, kwargs: dict[str, Any]) -> None:
    where = os.environ.get("RAY_ADDRESS") or address if address in (None, "auto") else address
    if not isinstance(where, str) or not where.startswith("ray://"):
        given = sorted(set(kwargs) & set(_CLIENT_ONLY))
        if given:
            raise RuntimeError(f"{', '.join(given)} of ray.init: for addresses of the scheme ray:// only.")
    if kwargs.get("allow_multiple"):
        raise NotImplementedError(
            "allow_multiple=True is not supported: a process has one connection at a time. "
            "ray.shutdown() ends it; for several clusters at once use several processes."
        )
    if kwargs.get("_credentials") is not None:
        raise NotImplementedError(
            "_credentials is not supported: RAY_USE_TLS=1 with the files RAY_TLS_SERVER_CERT, RAY_TLS_SERVER_KEY and "
            "RAY_TLS_CA_CERT give this driver its certificates."
        )


def _check_init(address: Any, given: dict[str, Any], local_mode: bool, namespace: Any, kwargs: dict[str, Any]) -> None:
    if local_mode:
        raise RuntimeError("`local_mode` is a removed feature.")
    if "storage" in kwargs:
        raise RuntimeError("The argument `storage` of ray.init was removed.")
    _check_client_only(address, kwargs)
    unknown = sorted(set(kwargs) - _ACCEPTED - set(_OWN_CLUSTER_ONLY) - set(_CLIENT_ONLY))
    if unknown:
        raise RuntimeError(f"Unknown keyword argument(s) of ray.init: {', '.join(unknown)}")
    if namespace is not None and not isinstance(namespace, str):
        raise TypeError(f"namespace must be None or a string, got {namespace!r}.")
    if namespace == "":
        raise ValueError('"" is not a valid namespace. Pass None to get a random one.')
    if not isinstance(kwargs.get("_system_config") or {}, dict):
        raise TypeError(f"_system_config must be a dict, got {kwargs['_system_config']!r}.")
    opts.check_node_sizes(given)
    if given["labels"] is not None:
        opts.check_node_labels(given["labels"])
    if given["resources"] is not None:
        opts.check_node_resources(given["resources"])
    spilling = kwargs.get("object_spilling_directory")
    if spilling is not None:
        from ray._runtime import spilling as spill_targets

        spill_targets.resolve(spilling, {}, {})


def _connect(
    address: str | None,
    given: dict[str, Any],
    namespace: str | None,
    log_to_driver: bool | None,
    job_config: dict[str, Any],
    system_config: dict[str, Any],
) -> Session:
    import uuid

    temp_dir = given.get("_temp_dir")
    if temp_dir is not None and not os.path.isabs(temp_dir):
        raise ValueError(f"_temp_dir must be an absolute path, got {temp_dir!r}.")
    attachment, address = _attach(_find_address(address, temp_dir), given, system_config)
    if log_to_driver is None:
        log_to_driver = os.environ.get("RAY_LOG_TO_DRIVER", "1") != "0"
    try:
        session = sessions.start_driver(
            attachment,
            address=address,
            namespace=namespace or job_config.pop("namespace", None) or str(uuid.uuid4()),
            job_config=job_config,
            log_to_driver=log_to_driver,
            settings=attachment.settings,
        )
    except BaseException:
        if attachment.node is not None:
            attachment.node.stop()
        raise
    atexit.register(shutdown)
    logger.info("Started a local Ray instance." if attachment.starts_cluster else "Connected to Ray cluster.")
    return session


def _find_address(address: str | None, temp_dir: str | None) -> str:
    """What to connect to; "local": start a cluster."""
    from ray._runtime import session_dir

    if address is not None and not isinstance(address, str):
        raise TypeError(f"address must be a string, got {address!r}.")
    if address in (None, "auto"):
        address = os.environ.get("RAY_ADDRESS") or address
    if address is None:
        # Clusters of other drivers are theirs: only one that `ray start` made is joined without being named.
        return session_dir.find_running(temp_dir, owned=False) or "local"
    if address != "auto":
        return address
    found = session_dir.find_running(temp_dir)
    if found is None:
        raise ConnectionError(
            "Could not find any running Ray instance. Start one with `ray start --head`, or give its address."
        )
    return found


def _attach(address: str, given: dict[str, Any], system_config: dict[str, Any]) -> tuple[Attachment, str]:
    """A raylet for the driver, and the address of its cluster."""
    from ray._runtime import connect
    from ray._runtime.cluster_process import Node, NodeOptions

    temp_dir = given.get("_temp_dir")
    if address != "local":
        offending = sorted(key for key, value in given.items() if value is not None and key != "_temp_dir")
        offending += ["_system_config"] if system_config else []
        if offending:
            raise ValueError(
                f"When connecting to an existing cluster (here {address}), {', '.join(offending)} must not be given. "
                "ray.init(address='local', ...) starts another one."
            )
        return connect.attach(address, temp_dir=temp_dir), address
    options = NodeOptions(
        num_cpus=given["num_cpus"],
        num_gpus=given["num_gpus"],
        resources=given["resources"] or {},
        labels=given["labels"] or {},
        object_store_memory=given["object_store_memory"],
        memory=given.get("_memory"),
        node_name=given.get("_node_name"),
        object_spilling_directory=given.get("object_spilling_directory"),
        system_config=system_config,
    )
    node = Node.start_local(options, temp_dir=temp_dir)
    attachment = connect.Attachment(str(node.node_dir), str(node.session_dir / "logs"), node, starts_cluster=True)
    return attachment, node.gcs_address


def _job_runtime_env(job_config: Any, runtime_env: dict[str, Any] | None) -> dict[str, Any] | None:
    return runtime_env or getattr(job_config, "runtime_env", None)


def _job_config(
    job_config: Any, runtime_env: dict[str, Any] | None, logging_config: LoggingConfig | None
) -> dict[str, Any]:
    """What the workers of this job need to know: where to import from, the job's runtime environment, how to log."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    paths = [os.path.dirname(os.path.abspath(script))] if script else []
    paths += [os.path.abspath(path) if path else os.getcwd() for path in sys.path]
    config: dict[str, Any] = {"sys_path": list(dict.fromkeys([*paths, os.getcwd()])), "cwd": os.getcwd()}
    env = _job_runtime_env(job_config, runtime_env)
    if env:
        config["runtime_env"] = dict(env)
    if logging_config is not None:
        config["logging_config"] = logging_config.to_dict()
    if isinstance(job_config, JobConfig):
        config["default_actor_lifetime"] = job_config.default_actor_lifetime
        config["namespace"] = job_config.ray_namespace
    return config


def _configure_logging(level: int | str, fmt: str | None) -> None:
    if isinstance(level, str):
        number = logging.getLevelName(os.environ.get("RAY_LOGGER_LEVEL", level).upper())
        if not isinstance(number, int):
            raise ValueError(f"logging_level must be a level of the logging module, got {level!r}.")
        level = number
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(
            logging.Formatter(fmt or "%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s")
        )
        logger.addHandler(handler)
        logger.propagate = False


def _context(session: Session) -> RayContext:
    info = address_info(session.node_ip, session.gcs_address, session.session_dir, session.node_dir)
    info["node_id"] = session.node_id.hex()
    return ClientContext(info) if session.is_remote else RayContext(info)


def auto_init() -> Session:
    """`ray.init()` for the first call of a program that did not call it."""
    with _INIT_LOCK:
        session = sessions.current_session()
        if session is None:
            init()
            session = sessions.require_session()
        return session


def shutdown(*, wait_for_processes: bool = False, _exiting_interpreter: bool = False) -> None:
    """Disconnects; ends the cluster if `ray.init` started it here. Does nothing when not connected."""
    with _INIT_LOCK:
        session = sessions.current_session()
        if session is not None:
            session.shutdown("the driver called ray.shutdown()")
        atexit.unregister(shutdown)


def is_initialized() -> bool:
    """Whether this process is connected to a cluster."""
    return sessions.current_session() is not None

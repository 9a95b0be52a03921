"""`ActorHandle`, a reference to an actor, and `ActorMethod`, what its attributes are. Public as `ray.actor`'s."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ray import _call_shape
from ray import options as opts
from ray._auto_init import ensure_session
from ray._call_shape import CallShape
from ray._core.call import CallPlan, HandleBase, MethodBase
from ray._launch_hooks import FunctionDescriptor
from ray._raylet import ActorID, ObjectRef
from ray._runtime.session import Session, current_session
from ray.remote_function import retry_fields

_STREAMING = -2
_MAX_PLANS = 4096


class MethodInfo(NamedTuple):
    """What a handle must know of one method. Travels with handles."""

    name: str
    shape: CallShape
    is_generator: bool
    options: dict[str, Any]  # of @ray.method
    decorator: Callable[..., Any] | None = (
        None  # wraps the sending of calls; `__ray_invocation_decorator__` of the method
    )

    def num_returns(self, override: Any = None) -> int:
        return opts.num_returns_code(
            self.options.get("num_returns") if override is None else override, self.is_generator
        )


# Methods that every actor has.
IMPLICIT = {
    name: MethodInfo(name, _call_shape.ANY._replace(name=name), False, {})
    for name in ("__ray_ready__", "__ray_terminate__", "__ray_call__")
}


class ActorType(NamedTuple):
    """What all handles of one actor class share."""

    module: str
    class_name: str
    function_id: bytes
    methods: dict[str, MethodInfo]
    is_async: bool
    max_task_retries: int
    max_pending_calls: int
    out_of_order: bool
    shared_backpressure: int  # unconsumed items of all its streams together; 0: no limit
    task_events: bool  # its calls are recorded, unless their own options say otherwise

    @property
    def plan_key(self) -> tuple[Any, ...]:
        """What tells its methods from those of another type."""
        return self.function_id, self.max_task_retries, self.out_of_order, self.shared_backpressure, self.task_events


class ActorMethod(MethodBase):
    """A method of a live actor: `handle.method.remote(...)` sends the call and returns its refs at once."""

    __slots__ = ()
    __module__ = "ray.actor"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._info.name
        raise TypeError(
            f"Actor methods cannot be called directly. Instead of 'object.{name}()', use 'object.{name}.remote()'."
        )

    def _make_plan(self) -> CallPlan:
        plan: CallPlan = self._handle._plan_of(ensure_session(), self._info, self._options)
        return plan

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options for the calls made through the result."""
        if "_num_objects_per_yield" in options:
            raise ValueError("_num_objects_per_yield can only be given to @ray.method.")
        unknown = set(options) - set(opts.METHOD)
        if unknown:
            raise TypeError(
                f"Unknown option(s) {sorted(unknown)} of an actor method; valid ones are {sorted(opts.METHOD)}."
            )
        opts.validate(options, opts.METHOD, what="methods")
        group = options.get("concurrency_group")
        if group is not None:
            self._handle._check_group(group)
        return type(self)(self._handle, self._info, {**(self._options or {}), **options})

    def _remote(self, args: Any = (), kwargs: Any = None, **options: Any) -> Any:
        target = self.options(**options) if options else self
        return target.remote(*args, **(kwargs or {}))


class _DecoratedMethod(ActorMethod):
    """A method whose class marked it with something that wraps the sending of its calls."""

    __slots__ = ()

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """As `ActorMethod.remote`, by way of the decorator; what that returns."""
        send = super().remote
        return self._info.decorator(lambda args, kwargs: send(*args, **kwargs))(args, kwargs)


class ActorHandle(HandleBase):
    """A reference to an actor. Equal handles name the same actor; they can be passed to tasks and stored in objects.

    A strong handle keeps the actor alive; handles from `get_actor` and `current_actor` are weak.
    """

    __module__ = "ray.actor"

    def __init__(
        self,
        session: Session,
        actor_type: ActorType,
        actor_id: bytes,
        owner: bytes,
        name: str,
        namespace: str,
        groups: tuple[str, ...],
        ref: ObjectRef | None,
    ) -> None:
        super().__init__(actor_id, session.method_plans.setdefault((*actor_type.plan_key, groups), {}))
        self._ray_type = actor_type
        self._ray_owner = owner
        self._ray_name = name
        self._ray_namespace = namespace
        self._ray_groups = groups
        self._ref = ref  # counts this handle; None: weak

    @property
    def _actor_id(self) -> ActorID:
        return ActorID(self._actor_id_bytes)

    _ray_actor_id = _actor_id

    @property
    def _ray_actor_creation_function_descriptor(self) -> FunctionDescriptor:
        t = self._ray_type
        return FunctionDescriptor(t.module, "__init__", t.class_name, t.function_id)

    @property
    def _ray_is_weak(self) -> bool:
        return self._ref is None

    def _missing(self, name: str) -> ActorMethod:
        actor_type = self.__dict__.get("_ray_type")
        info = actor_type.methods.get(name) if actor_type is not None else None
        if info is None:
            class_name = actor_type.class_name if actor_type is not None else "?"
            raise AttributeError(f"'{class_name}' actor has no method '{name}'")
        kind = ActorMethod if info.decorator is None else _DecoratedMethod
        session = current_session()
        group = info.options.get("concurrency_group")
        if session is not None and (not group or group in self._ray_groups):
            self._remember(name, kind, info, self._plan_of(session, info, None))
        return kind(self, info)

    if TYPE_CHECKING:  # what `_missing` gives

        def __getattr__(self, name: str) -> ActorMethod: ...

    def __dir__(self) -> list[str]:
        return [name for name in self._ray_type.methods if not name.startswith("__")]

    def __repr__(self) -> str:
        return f"Actor({self._ray_type.class_name}, {self._actor_id_bytes.hex()})"

    def __hash__(self) -> int:
        return hash(self._actor_id_bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._actor_id_bytes == self._actor_id_bytes

    def __reduce__(self) -> tuple[Any, ...]:
        strong = self._ref is not None
        session = ensure_session()
        session.serialize_actor_handle(self)
        t = self._ray_type
        state = (
            t,
            self._actor_id_bytes,
            self._ray_owner,
            self._ray_name,
            self._ray_namespace,
            self._ray_groups,
            strong,
        )
        return (_restore_handle, (state,))

    def _check_group(self, group: str) -> None:
        if group not in self._ray_groups:
            raise ValueError(
                f"Concurrency group {group!r} is not defined by actor class {self._ray_type.class_name}; "
                f"defined are {sorted(self._ray_groups)}."
            )

    def _plan_of(self, session: Session, info: MethodInfo, options: dict[str, Any] | None) -> CallPlan:
        t = self._ray_type
        merged = {**info.options, **(options or {})}
        key = (*t.plan_key, self._ray_groups, info.name, repr(sorted(merged.items(), key=lambda item: item[0])))
        found = session.plans.get(key)
        if found is not None:
            return found
        num_returns = info.num_returns(merged.get("num_returns"))
        group = merged.get("concurrency_group") or ""
        if group:
            self._check_group(group)
        retries = merged.get("max_task_retries")
        backpressure = merged.get("_generator_backpressure_num_objects")
        events = merged.get("enable_task_events")
        template = session.register_template(
            type=3,
            function_id=t.function_id,
            function_name=f"{t.module}.{t.class_name}.{info.name}",
            method_name=info.name,
            name=merged.get("name") or f"{t.class_name}.{info.name}",
            num_returns=num_returns,
            max_retries=t.max_task_retries if retries is None else retries,
            concurrency_group=group,
            generator_backpressure=-1 if backpressure is None else backpressure,
            out_of_order=t.out_of_order,
            timeout_s=float(merged.get("timeout_s") or 0),
            objects_per_yield=opts.objects_per_yield(merged),
            omit_task_events=not (t.task_events if events is None else events),
            shared_backpressure=t.shared_backpressure if num_returns == _STREAMING else 0,
            **retry_fields(merged.get("retry_exceptions") or False),
        )
        if len(session.plans) >= _MAX_PLANS:  # options may be made without end, such as a name for each call
            session.plans.clear()
        plan = session.plans[key] = CallPlan(session.core, template, num_returns, info.shape)
        return plan


def _restore_handle(state: tuple[Any, ...]) -> ActorHandle:
    actor_type, actor_id, owner, name, namespace, groups, strong = state
    session = ensure_session()
    options = _handle_options(actor_type, name, namespace)
    if strong:
        session.add_actor_handle_ref(actor_id, owner, options)
    else:
        session.register_actor_handle(actor_id, owner, options)
    ref = session.actor_handle_ref(actor_id) if strong else None
    return ActorHandle(session, actor_type, actor_id, owner, name, namespace, groups, ref)


def _handle_options(actor_type: ActorType, name: str, namespace: str) -> dict[str, Any]:
    return {
        "name": name,
        "ray_namespace": namespace,
        "class_name": actor_type.class_name,
        "is_async": actor_type.is_async,
        "allow_out_of_order": actor_type.out_of_order,
        "max_task_retries": actor_type.max_task_retries,
        "max_pending_calls": actor_type.max_pending_calls,
    }


def handle_from_fields(session: Session, fields: dict[str, Any]) -> ActorHandle:
    """A weak handle of an actor as the GCS describes it."""
    actor_type, groups = pickle.loads(fields["method_table"])
    name, namespace = fields["name"], fields["ray_namespace"]
    session.register_actor_handle(fields["actor_id"], fields["owner"], _handle_options(actor_type, name, namespace))
    return ActorHandle(session, actor_type, fields["actor_id"], fields["owner"], name, namespace, groups, None)


def current_actor_handle(session: Session) -> ActorHandle:
    """A weak handle to the actor that this code runs in.

    Raises:
        RuntimeError: not inside an actor.
    """
    task = session.task
    if task is None or task.actor_id is None:
        raise RuntimeError("This method is only available in an actor.")
    return handle_from_fields(session, session.current_actor_fields)

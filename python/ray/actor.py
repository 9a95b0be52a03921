"""Actors.

`ActorClass` is what `@ray.remote` makes of a class, `ActorHandle` what `.remote()` gives, `ActorMethod` its methods.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ray import _call_shape, _placement
from ray import options as opts
from ray._auto_init import ensure_session
from ray._call_shape import CallShape
from ray._core.call import CallPlan, HandleBase, MethodBase
from ray._raylet import ActorID, ObjectRef
from ray._runtime.session import Session, current_session
from ray.exceptions import ActorAlreadyExistsError, AsyncioActorExit
from ray.remote_function import retry_fields

_DEFAULT_ASYNC_CONCURRENCY = 1000
_STREAMING = -2
_MAX_COUNT = (1 << 31) - 1  # of restarts and retries; more is as good as without end


class ActorClassInheritanceException(TypeError):
    """A class was derived from an actor class; derive from the plain class and decorate that."""


class MethodInfo(NamedTuple):
    """What a handle must know of one method. Travels with handles."""

    name: str
    shape: CallShape
    is_generator: bool
    options: dict[str, Any]  # of @ray.method

    def num_returns(self, override: Any = None) -> int:
        return opts.num_returns_code(
            self.options.get("num_returns") if override is None else override, self.is_generator
        )


# Methods that every actor has.
_IMPLICIT = {
    name: MethodInfo(name, _call_shape.ANY._replace(name=name), False, {})
    for name in ("__ray_ready__", "__ray_terminate__", "__ray_call__")
}


def method(*args: Any, **kwargs: Any) -> Any:
    """Sets defaults of an actor method: `@ray.method(num_returns=2)`.

    Raises:
        AssertionError: an unknown option.
        TypeError, ValueError: a bad value.
    """
    if len(args) == 1 and callable(args[0]) and not kwargs:
        return args[0]
    assert not args, "@ray.method takes keyword arguments only"
    unknown = sorted(set(kwargs) - set(opts.METHOD_DECORATOR))
    assert not unknown, f"Unknown option(s) {unknown} of @ray.method; valid ones are {sorted(opts.METHOD_DECORATOR)}."
    opts.validate(kwargs, opts.METHOD_DECORATOR, what="methods")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__ray_method_options__ = kwargs  # type: ignore[attr-defined]  # a plain function gets the mark
        return function

    return decorate


def _methods_of(cls: type) -> dict[str, MethodInfo]:
    table = dict(_IMPLICIT)
    for name, member in inspect.getmembers(cls, lambda m: callable(m) and not isinstance(m, type)):
        if name.startswith("__") and name not in cls.__dict__ and name != "__call__":
            continue
        static = isinstance(inspect.getattr_static(cls, name), staticmethod)
        bound = inspect.ismethod(member)  # class methods
        if not (inspect.isfunction(member) or bound):
            continue
        generator = inspect.isgeneratorfunction(member) or inspect.isasyncgenfunction(member)
        shape = _call_shape.of(member, name, skip_self=not static and not bound)
        table[name] = MethodInfo(name, shape, generator, getattr(member, "__ray_method_options__", {}))
    return table


class _Type(NamedTuple):
    """What all handles of one actor class share."""

    class_name: str
    function_id: bytes
    methods: dict[str, MethodInfo]
    is_async: bool
    max_task_retries: int
    max_pending_calls: int
    out_of_order: bool
    shared_backpressure: int  # unconsumed items of all its streams together; 0: no limit

    @property
    def plan_key(self) -> tuple[Any, ...]:
        """What tells its methods from those of another type."""
        return self.function_id, self.max_task_retries, self.out_of_order, self.shared_backpressure


class _Prepared(NamedTuple):
    """What repeats from one actor of a class and its options to the next."""

    session: Session
    group: bytes  # the placement group that it inherits; empty: none
    template: int
    actor_type: _Type
    groups: tuple[str, ...]
    fields: dict[str, Any]


class _Options(dict[str, Any]):
    """Options of an actor class together with what was made of them."""

    prepared: _Prepared | None = None


class ActorMethod(MethodBase):
    """A method of a live actor: `handle.method.remote(...)` sends the call and returns its refs at once."""

    __slots__ = ()

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
        return ActorMethod(self._handle, self._info, {**(self._options or {}), **options})

    def _remote(self, args: Any = (), kwargs: Any = None, **options: Any) -> Any:
        target = self.options(**options) if options else self
        return target.remote(*args, **(kwargs or {}))


class ActorHandle(HandleBase):
    """A reference to an actor. Equal handles name the same actor; they can be passed to tasks and stored in objects.

    A strong handle keeps the actor alive; handles from `get_actor` and `current_actor` are weak.
    """

    def __init__(
        self,
        session: Session,
        actor_type: _Type,
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
    def _ray_is_weak(self) -> bool:
        return self._ref is None

    def _missing(self, name: str) -> ActorMethod:
        actor_type = self.__dict__.get("_ray_type")
        info = actor_type.methods.get(name) if actor_type is not None else None
        if info is None:
            class_name = actor_type.class_name if actor_type is not None else "?"
            raise AttributeError(f"'{class_name}' actor has no method '{name}'")
        session = current_session()
        group = info.options.get("concurrency_group")
        if session is not None and (not group or group in self._ray_groups):
            self._remember(name, ActorMethod, info, self._plan_of(session, info, None))
        return ActorMethod(self, info)

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
        template = session.register_template(
            type=3,
            function_id=t.function_id,
            function_name=f"{t.class_name}.{info.name}",
            method_name=info.name,
            name=merged.get("name") or f"{t.class_name}.{info.name}",
            num_returns=num_returns,
            max_retries=t.max_task_retries if retries is None else retries,
            concurrency_group=group,
            generator_backpressure=-1 if backpressure is None else backpressure,
            out_of_order=t.out_of_order,
            timeout_s=float(merged.get("timeout_s") or 0),
            objects_per_yield=opts.objects_per_yield(merged),
            shared_backpressure=t.shared_backpressure if num_returns == _STREAMING else 0,
            **retry_fields(merged.get("retry_exceptions") or False),
        )
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


def _handle_options(actor_type: _Type, name: str, namespace: str) -> dict[str, Any]:
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


class ActorClass:
    """A class whose instances are actors: `Cls.remote(...)` starts one and returns its handle at once."""

    def __init__(self, cls: type, options: dict[str, Any], *derived: Any) -> None:
        if derived or not isinstance(cls, type):
            raise ActorClassInheritanceException(
                "Inheriting from an actor class is not supported. "
                "Derive from the plain class and decorate the derived one with @ray.remote."
            )
        self._cls = cls
        self._default_options = _Options(options)
        self._methods = _methods_of(cls)
        self._is_async = any(
            inspect.iscoroutinefunction(m) or inspect.isasyncgenfunction(m)
            for _, m in inspect.getmembers(cls, inspect.isfunction)
        )
        init = next((base.__dict__["__init__"] for base in cls.__mro__[:-1] if "__init__" in base.__dict__), None)
        self._init_shape = (
            _call_shape.of(init, f"{cls.__name__}.__init__", skip_self=True)
            if init is not None
            else CallShape(f"{cls.__name__}.__init__", (), 0, 0, {}, False, False)
        )
        self._session: Session | None = None
        self._function_id = b""
        self._check_concurrency(options)
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__
        self.__doc__ = cls.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._cls.__name__
        raise TypeError(f"Actors cannot be instantiated directly. Instead of '{name}()', use '{name}.remote()'.")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise ActorClassInheritanceException(
            f"Inheriting from the actor class {self._cls.__name__} is not supported. "
            "Derive from the plain class and decorate the derived one."
        )

    def __getstate__(self) -> dict[str, Any]:
        options = _Options(self._default_options)
        return {**self.__dict__, "_session": None, "_function_id": b"", "_default_options": options}

    @property
    def __ray_metadata__(self) -> Any:
        return self

    @property
    def __ray_actor_class__(self) -> type:
        return self._cls

    def _check_concurrency(self, options: dict[str, Any]) -> None:
        concurrent = self._is_async or (options.get("max_concurrency") or 1) > 1
        if options.get("allow_out_of_order_execution") is False and concurrent:
            raise ValueError(
                "allow_out_of_order_execution=False is not possible for async actors or with max_concurrency > 1."
            )

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Starts an actor whose constructor gets these arguments, and returns its handle at once.

        Raises:
            TypeError: the arguments do not fit the constructor.
            ActorAlreadyExistsError: the name is taken.
        """
        return self._create(args, kwargs, self._default_options)

    def options(self, **options: Any) -> _ActorClassWithOptions:
        """The same class with other options for the actors made through the result."""
        opts.validate_actor(options, in_options=True)
        opts.warn_of_deprecated(options)
        merged = _Options({**self._default_options, **options})
        opts.validate_actor(merged)
        self._check_concurrency(merged)
        return _ActorClassWithOptions(self, merged)

    def _remote(self, args: Any = (), kwargs: Any = None, **options: Any) -> ActorHandle:
        merged = {**self._default_options, **options}
        opts.validate_actor(merged)
        return self._create(tuple(args or ()), kwargs or {}, merged)

    def _create(self, args: tuple[Any, ...], kwargs: dict[str, Any], o: dict[str, Any]) -> ActorHandle:
        self._init_shape.check(args, kwargs)
        session = current_session() or ensure_session()
        name, namespace = o.get("name") or "", o.get("namespace") or session.namespace
        if not o.get("get_if_exists"):
            return self._create_new(session, args, kwargs, o, name, namespace)
        while True:  # another creator may win the race for the name, or the winner may die before it is looked up
            fields = session.get_named_actor(name, namespace)
            if fields is not None:
                return handle_from_fields(session, fields)
            try:
                return self._create_new(session, args, kwargs, o, name, namespace)
            except ActorAlreadyExistsError:
                continue

    def _create_new(
        self,
        session: Session,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        o: dict[str, Any],
        name: str,
        namespace: str,
    ) -> ActorHandle:
        group = session.captured_group if not session.is_driver and _placement.inherits(o) else b""
        prepared = o.prepared if isinstance(o, _Options) else None
        if prepared is None or prepared.session is not session or prepared.group != group:
            prepared = self._prepare(session, o, group)
            if isinstance(o, _Options):
                o.prepared = prepared
        fields = {**prepared.fields, "name": name, "ray_namespace": namespace}
        actor_id = session.create_actor(prepared.template, fields, args, kwargs)
        ref = session.actor_handle_ref(actor_id)
        return ActorHandle(
            session, prepared.actor_type, actor_id, session.address, name, namespace, prepared.groups, ref
        )

    def _prepare(self, session: Session, o: dict[str, Any], group: bytes) -> _Prepared:
        if session is not self._session:
            self._function_id = session.export_function(self._cls)
            self._session = session
        concurrency = o.get("max_concurrency") or (_DEFAULT_ASYNC_CONCURRENCY if self._is_async else 1)
        groups = _groups(o.get("concurrency_groups"))
        out_of_order = o.get("allow_out_of_order_execution")
        if out_of_order is None:
            out_of_order = self._is_async or concurrency > 1 or bool(groups)
        max_task_retries = min(o.get("max_task_retries", 0), _MAX_COUNT)
        max_pending_calls = o.get("max_pending_calls", -1)
        actor_type = _Type(
            self._cls.__name__,
            self._function_id,
            self._methods,
            self._is_async,
            max_task_retries,
            max_pending_calls,
            out_of_order,
            max(0, o.get("_actor_generator_backpressure_num_objects") or 0),
        )
        placement, kept = opts.actor_resources(o)
        runtime_env = session.runtime_env_json(o.get("runtime_env"))
        strategy = _placement.fields(session, o, placement, captured=group)
        key = (self._function_id, "__init__", repr((sorted(kept.items()), runtime_env, sorted(strategy.items()))))
        found = session.creation_templates.get(key)
        if found is None:
            template = session.register_template(
                type=2,
                function_id=self._function_id,
                function_name=f"{self._cls.__name__}.__init__",
                name=f"{self._cls.__name__}.__init__",
                resources=kept,
                num_returns=1,
                max_retries=0,
                runtime_env=runtime_env,
                **strategy,
            )
            found = session.creation_templates[key] = template
        fields = {
            "class_name": self._cls.__name__,
            "method_table": pickle.dumps((actor_type, tuple(groups)), protocol=5),
            "detached": (o.get("lifetime") or session.job_config.get("default_actor_lifetime")) == "detached",
            "is_async": self._is_async,
            "allow_out_of_order": out_of_order,
            "max_restarts": min(o.get("max_restarts", 0), _MAX_COUNT),
            "max_task_retries": max_task_retries,
            "max_concurrency": concurrency,
            "max_pending_calls": max_pending_calls,
            "concurrency_groups": list(groups.items()),
            "placement_resources": placement,
        }
        return _Prepared(session, group, found, actor_type, tuple(groups), fields)


class _ActorClassWithOptions:
    """Result of `ActorClass.options`."""

    def __init__(self, actor_class: ActorClass, options: dict[str, Any]) -> None:
        self._actor_class = actor_class
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """As `ActorClass.remote`, with these options."""
        return self._actor_class._create(args, kwargs, self._options)

    def options(self, **options: Any) -> _ActorClassWithOptions:
        """As `ActorClass.options`, on top of these options."""
        return self._actor_class.options(
            **{k: v for k, v in {**self._options, **options}.items() if k != "concurrency_groups"}
        )


def _groups(value: Any) -> dict[str, int]:
    if isinstance(value, list):  # the list form of the option: [{"name": ..., "max_concurrency": ...}]
        value = {group["name"]: group["max_concurrency"] for group in value}
    for name, limit in (value or {}).items():
        if name == "_ray_system" or not isinstance(limit, int) or limit < 1:
            raise ValueError(
                f"Concurrency group {name!r} must have a limit of at least 1, and not be called '_ray_system'; "
                f"got {limit!r}."
            )
    return dict(value or {})


def exit_actor() -> None:
    """Ends the current actor, on purpose: its queued calls fail, it is not restarted.

    Raises:
        TypeError: not called inside an actor method.
    """
    session = current_session()
    task = session.task if session is not None else None
    if task is None or task.actor_id is None:
        raise TypeError("exit_actor called on a non-actor worker.")
    if task.is_async_actor:
        raise AsyncioActorExit
    raise SystemExit(0)


def current_actor_handle(session: Session) -> ActorHandle:
    """A weak handle to the actor that this code runs in.

    Raises:
        RuntimeError: not inside an actor.
    """
    task = session.task
    if task is None or task.actor_id is None:
        raise RuntimeError("This method is only available in an actor.")
    return handle_from_fields(session, session.current_actor_fields)

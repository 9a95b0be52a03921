"""Actors.

`ActorClass` is what `@ray.remote` makes of a class, `ActorHandle` what `.remote()` gives, `ActorMethod` its methods.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from ray import _call_shape, _launch_hooks, _placement
from ray import options as opts
from ray._actor_handle import IMPLICIT, ActorType, MethodInfo, handle_from_fields
from ray._actor_handle import ActorHandle as ActorHandle
from ray._actor_handle import ActorMethod as ActorMethod
from ray._auto_init import ensure_session
from ray._call_shape import CallShape
from ray._core.worker import Template
from ray._launch_hooks import FunctionDescriptor
from ray._runtime.session import Session, current_session
from ray.exceptions import ActorAlreadyExistsError, AsyncioActorExit

_DEFAULT_ASYNC_CONCURRENCY = 1000
_actor_launch_hook: _launch_hooks.LaunchHook | None = None  # for programs to set: called before each actor is made
_MAX_COUNT = (1 << 31) - 1  # of restarts and retries; more is as good as without end


class ActorClassInheritanceException(TypeError):
    """A class was derived from an actor class; derive from the plain class and decorate that."""


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
        opts.check_generator(kwargs.get("num_returns"), _is_generator(function))
        function.__ray_method_options__ = kwargs  # type: ignore[attr-defined]  # a plain function gets the mark
        return function

    return decorate


def _is_generator(function: Any) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _methods_of(cls: type) -> dict[str, MethodInfo]:
    table = dict(IMPLICIT)
    for name, member in inspect.getmembers(cls, lambda m: callable(m) and not isinstance(m, type)):
        if name.startswith("__") and name not in cls.__dict__ and name != "__call__":
            continue
        static = isinstance(inspect.getattr_static(cls, name), staticmethod)
        bound = inspect.ismethod(member)  # class methods
        if not (inspect.isfunction(member) or bound):
            continue
        shape = _call_shape.of(member, name, skip_self=not static and not bound)
        options = getattr(member, "__ray_method_options__", {})
        decorator = getattr(member, "__ray_invocation_decorator__", None)
        table[name] = MethodInfo(name, shape, _is_generator(member), options, decorator)
    return table


class _Prepared(NamedTuple):
    """What repeats from one actor of a class and its options to the next."""

    session: Session
    group: bytes  # the placement group that it inherits; empty: none
    template: Template
    actor_type: ActorType
    groups: tuple[str, ...]
    fields: dict[str, Any]


class _Options(dict[str, Any]):
    """Options of an actor class together with what was made of them."""

    prepared: _Prepared | None = None


class ActorClass:
    """A class whose instances are actors: `Cls.remote(...)` starts one and returns its handle at once."""

    def __init__(self, cls: type, options: dict[str, Any], *derived: Any) -> None:
        if derived or not isinstance(cls, type):
            raise ActorClassInheritanceException(
                "Inheriting from an actor class is not supported. "
                "Derive from the plain class and decorate the derived one with @ray.remote."
            )
        if inspect.isabstract(cls):
            raise TypeError(
                f"The class {cls.__name__} is abstract, so no actor can be made of it: it does not define "
                f"{', '.join(sorted(getattr(cls, '__abstractmethods__', ())))}."
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

    def __repr__(self) -> str:
        return f"<{self._cls.__module__}.ActorClass({self._cls.__name__}) object at {id(self):#x}>"

    def __getattr__(self, name: str) -> Any:
        """Attributes of the class itself are to be had without an actor: constants, static and class methods."""
        cls = self.__dict__.get("_cls")  # not there yet while this object is unpickled
        if cls is None or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(cls, name)

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

    @property
    def modified_class(self) -> type:
        """The class that was decorated; part of `__ray_metadata__`."""
        return self._cls

    @property
    def class_name(self) -> str:
        """Its name; part of `__ray_metadata__`."""
        return self._cls.__name__

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
        if _actor_launch_hook is not None:
            described = FunctionDescriptor(
                self._cls.__module__, "__init__", self._cls.__qualname__, prepared.actor_type.function_id
            )
            _actor_launch_hook(described, opts.actor_resources(o)[0], _launch_hooks.strategy_of(o))
        fields = {**prepared.fields, "name": name, "ray_namespace": namespace}
        actor_id = session.create_actor(prepared.template, fields, args, kwargs)
        ref = session.actor_handle_ref(actor_id)
        return ActorHandle(
            session, prepared.actor_type, actor_id, session.address, name, namespace, prepared.groups, ref
        )

    def _prepare(self, session: Session, o: dict[str, Any], group: bytes) -> _Prepared:
        import ray.cloudpickle

        if session is not self._session:
            self._function_id = session.export_function(self._cls)
            self._session = session
        concurrency = o.get("max_concurrency") or (_DEFAULT_ASYNC_CONCURRENCY if self._is_async else 1)
        groups = _groups(o.get("concurrency_groups"))
        for method in self._methods.values():
            group_name = method.options.get("concurrency_group")
            assert not group_name or group_name in groups, (
                f"The method {method.name} of actor class {self._cls.__name__} is in the concurrency group "
                f"{group_name!r}, which the class does not define; defined are {sorted(groups)}."
            )
        out_of_order = o.get("allow_out_of_order_execution")
        if out_of_order is None:
            out_of_order = self._is_async or concurrency > 1 or bool(groups)
        max_task_retries = min(o.get("max_task_retries") or 0, _MAX_COUNT)
        max_pending_calls = o.get("max_pending_calls") or -1
        actor_type = ActorType(
            _launch_hooks.module_of(self._cls),
            self._cls.__name__,
            self._function_id,
            self._methods,
            self._is_async,
            max_task_retries,
            max_pending_calls,
            out_of_order,
            max(0, o.get("_actor_generator_backpressure_num_objects") or 0),
            o.get("enable_task_events", True),
        )
        placement, kept = opts.actor_resources(o)
        template = session.register_template(
            type=2,
            function_id=self._function_id,
            function_name=f"{actor_type.module}.{self._cls.__name__}.__init__",
            name=f"{self._cls.__name__}.__init__",
            resources=kept,
            num_returns=1,
            max_retries=0,
            runtime_env=session.runtime_env_json(o.get("runtime_env")),
            omit_task_events=not actor_type.task_events,
            **_placement.fields(session, o, placement, captured=group),
        )
        fields = {
            "class_name": self._cls.__name__,
            # Decorators and exception classes in it may be of the program's main module.
            "method_table": ray.cloudpickle.dumps((actor_type, tuple(groups))),
            "detached": (o.get("lifetime") or session.job_config.get("default_actor_lifetime")) == "detached",
            "is_async": self._is_async,
            "allow_out_of_order": out_of_order,
            "max_restarts": min(o.get("max_restarts") or 0, _MAX_COUNT),
            "max_task_retries": max_task_retries,
            "max_concurrency": concurrency,
            "max_pending_calls": max_pending_calls,
            "concurrency_groups": list(groups.items()),
            "placement_resources": placement,
        }
        return _Prepared(session, group, template, actor_type, tuple(groups), fields)


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

# cython: language_level=3, embedsignature=True
"""The first half of a remote call: from `f.remote(...)` or `actor.method.remote(...)` to the core.

What repeats from call to call (the template, which numbers of arguments are right, how the result is shaped) is kept in a `CallPlan`. The classes
here are the hot part of those in `ray.remote_function` and `ray.actor`, which derive from them and make the plans.
"""
cimport cython
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject, PyObject_GenericGetAttr, PyTypeObject
from libc.stdint cimport int32_t, uint64_t

from ray._core.object_ref cimport active_or_none
from ray._core.worker cimport CoreWorker, Template

from ray._core import creation_sites
from ray._core.generator import ObjectRefGenerator

ctypedef object (*NewFunc)(object, object, PyObject*)

cdef tuple _EMPTY = ()
cdef object _launch_hook = None  # (function) -> None, told of each submission
cdef object _observer = None  # (function or method) -> None, told after each submission
cdef bint _may_capture = False  # some task of this process hands its placement group on to what it submits
cdef Py_ssize_t _ANY = 1 << 60


def note_capture():
    """From now on functions are asked for the plan of the placement group that their caller runs in."""
    global _may_capture
    _may_capture = True


def set_launch_hook(hook):
    """From now on `hook(function)` is called before each submission of a function; None: no more."""
    global _launch_hook
    _launch_hook = hook


def set_call_observer(observer):
    """From now on `observer(function or method)` is called after each submission, in the calling thread; None: no more."""
    global _observer
    _observer = observer


@cython.final
cdef class CallPlan:
    """What all calls of a function or method with the same options share. Valid as long as its worker is the connected one."""

    cdef CoreWorker worker
    cdef Template template
    cdef uint64_t handle  # of the template
    cdef int32_t num_returns
    cdef Py_ssize_t least, most  # numbers of positional arguments that need no look at their names
    cdef object check            # (args, kwargs) -> None, or raises TypeError
    cdef bint notes_sites        # where each ref was made is recorded

    def __init__(self, CoreWorker worker not None, Template template not None, int32_t num_returns, shape):
        self.worker = worker
        self.template = template
        self.handle = template.handle
        self.num_returns = num_returns
        self.check = shape.check
        self.least = shape.required
        self.most = _ANY if shape.var_positional else len(shape.positional)
        if shape.keyword_only:
            self.most = -1
        self.notes_sites = worker.notes_sites

    cdef object call(self, bytes actor_id, tuple args, dict kwargs):
        # What the caller gets: a ref, a list of them, None, or a generator.
        cdef list refs
        cdef Py_ssize_t given = len(args)
        if kwargs or given < self.least or given > self.most:
            self.check(args, kwargs)
        refs = self.worker.submit_call(actor_id, self.handle, args, kwargs)
        if self.notes_sites:
            for ref in refs:
                self.worker.note_site(ref, creation_sites.note(ref.binary()))
        if self.num_returns == 1 or self.num_returns == -1:
            return refs[0]
        if self.num_returns == -2:
            return ObjectRefGenerator(refs[0])
        return None if self.num_returns == 0 else refs


@cython.auto_pickle(False)
cdef class FunctionBase:
    """Derived classes define `_make_plan` and `_captured_plan`."""

    cdef CallPlan _plan

    def remote(self, *args, **kwargs):
        """Submits a task with these arguments; refs among them are replaced by their values before it runs.

        Returns:
            An ObjectRef; a list of them for num_returns > 1; None for 0; an ObjectRefGenerator for generators.

        Raises:
            TypeError: the arguments do not fit the signature, or something cannot be pickled.
            ValueError: the function is larger than 100 MB when pickled.
        """
        cdef CallPlan plan = self._plan
        if plan is None or plan.worker is not active_or_none():
            plan = self._plan = self._make_plan()
        if _launch_hook is not None:
            _launch_hook(self)
        if _may_capture:
            captured = self._captured_plan()
            if captured is not None:
                plan = captured
        if _observer is None:
            return plan.call(None, args, kwargs)
        made = plan.call(None, args, kwargs)
        _observer(self)
        return made


@cython.auto_pickle(False)
cdef class MethodBase:
    """Derived classes define `_make_plan`, and `__new__` without arguments gives one to be filled."""

    cdef readonly HandleBase _handle
    cdef readonly object _info
    cdef readonly object _options  # a dict, or None
    cdef CallPlan _plan

    def __init__(self, HandleBase handle not None, info, options=None):
        self._handle = handle
        self._info = info
        self._options = options

    def __reduce__(self):
        return type(self), (self._handle, self._info, self._options)

    def remote(self, *args, **kwargs):
        """Sends the call.

        Returns:
            An ObjectRef; a list for num_returns > 1; None for 0; an ObjectRefGenerator for generators.

        Raises:
            TypeError: the arguments do not fit the signature, or cannot be pickled.
            PendingCallsLimitExceeded: more calls in flight than max_pending_calls.
        """
        cdef CallPlan plan = self._plan
        if plan is None or plan.worker is not active_or_none():
            plan = self._plan = self._make_plan()
        if _observer is None:
            return plan.call(self._handle._actor_id_bytes, args, kwargs)
        made = plan.call(self._handle._actor_id_bytes, args, kwargs)
        _observer(self)
        return made


@cython.auto_pickle(False)
cdef class HandleBase:
    """Derived classes define `_missing`, which makes the method of a name for the first time, or raises AttributeError."""

    cdef readonly bytes _actor_id_bytes
    cdef dict _methods  # name -> (class of methods, MethodInfo, CallPlan); shared by the handles of one type in one session
    cdef object __weakref__

    def __init__(self, bytes actor_id not None, dict methods not None):
        self._actor_id_bytes = actor_id
        self._methods = methods

    def __getattribute__(self, name):
        # A method that was called before comes first: the usual way finds no attribute, and makes an exception to say so.
        cdef PyObject* found
        cdef PyTypeObject* cls
        cdef tuple known
        cdef MethodBase made
        if self._methods is not None:
            found = PyDict_GetItem(self._methods, name)
            if found != NULL:
                known = <tuple>found
                cls = <PyTypeObject*><PyObject*>known[0]
                made = <MethodBase?>(<NewFunc>cls.tp_new)(known[0], _EMPTY, NULL)
                made._handle = self
                made._info = known[1]
                made._plan = <CallPlan>known[2]
                return made
        try:
            return PyObject_GenericGetAttr(self, name)
        except AttributeError:
            # Not by way of the attributes of `self`, which would come here again.
            return type(self)._missing(self, name)

    def _remember(self, name, type cls, info, CallPlan plan not None):
        """From now on the attribute `name` gives a `cls` of `info` at once."""
        self._methods[name] = (cls, info, plan)

"""Pool: the standard library's process pool, with actors for processes."""

from __future__ import annotations

import itertools
import os
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import TimeoutError as PoolTimeoutError
from typing import Any, NoReturn

from ray import cloudpickle
from ray.api import cluster_resources, get, init, is_initialized, kill, put, remote, wait

_CHUNKS_PER_WORKER = 4  # of map: small enough that the workers finish together, large enough to be cheap
_AHEAD = 2  # chunks of imap in flight, for each worker


class RemoteTraceback(Exception):
    """The traceback as the worker saw it; the cause of the exception that is raised here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class _Failure:
    def __init__(self, error: Exception) -> None:
        self.text = "".join(traceback.format_exception(error))
        try:
            cloudpickle.dumps(error)
            self.error = error
        except Exception as why:  # whatever a user's exception does when it is pickled
            self.error = RuntimeError(f"{error!r} (it cannot be pickled: {why})")

    def raise_it(self) -> NoReturn:
        try:
            raise self.error from RemoteTraceback(self.text)
        finally:
            del self  # the error's traceback would hold what holds the error


class _PoolActor:
    def __init__(self, initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]) -> None:
        if initializer is not None:
            initializer(*initargs)

    def ping(self) -> None:
        pass

    def run(self, func: Callable[..., Any], calls: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
        results: list[Any] = []
        for args, kwargs in calls:
            try:
                results.append(func(*args, **kwargs))
            except Exception as error:
                results.append(_Failure(error))
        return results


class AsyncResult:
    """Results of calls that run. Made by Pool."""

    def __init__(
        self,
        refs: list[Any],
        single: bool,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> None:
        self._refs = refs
        self._single = single
        self._thread: threading.Thread | None = None
        if callback is not None or error_callback is not None:
            self._thread = threading.Thread(target=self._call_back, args=(callback, error_callback), daemon=True)
            self._thread.start()

    def _call_back(self, callback: Callable[[Any], Any] | None, error_callback: Callable[..., Any] | None) -> None:
        try:
            value = self.get()
        except Exception as error:
            if error_callback is not None:
                error_callback(error)
            return
        if callback is not None:
            callback(value)

    def wait(self, timeout: float | None = None) -> None:
        """Waits until all calls have ended, `timeout` seconds at most."""
        if self._refs:
            wait(self._refs, num_returns=len(self._refs), timeout=timeout)

    def ready(self) -> bool:
        """Whether all calls have ended."""
        return not self._refs or not wait(self._refs, num_returns=len(self._refs), timeout=0)[1]

    def successful(self) -> bool:
        """Whether none of them raised. ValueError: they have not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        try:
            self.get()
        except Exception:
            return False
        return True

    def get(self, timeout: float | None = None) -> Any:
        """The value, or the values in their order; raises what a call raised, or multiprocessing.TimeoutError."""
        self.wait(timeout)
        if not self.ready():
            raise PoolTimeoutError
        values = list(itertools.chain.from_iterable(get(self._refs)))
        failure = next((value for value in values if isinstance(value, _Failure)), None)
        if failure is None:
            return values[0] if self._single else values
        try:
            failure.raise_it()
        finally:
            del failure, values  # as in raise_it


class _IMap(Iterator[Any]):
    """Results of imap: submits chunks as earlier ones are taken."""

    def __init__(
        self, pool: Pool, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int, ordered: bool
    ) -> None:
        self._pool = pool
        self._func = put(func)
        self._items = iter(iterable)
        self._chunksize = chunksize
        self._ordered = ordered
        self._refs: list[Any] = []
        self._values: deque[Any] = deque()
        self.exhausted = False
        self.fill()

    def fill(self, everything: bool = False) -> None:
        """Submits up to the limit, or all that is left; nothing when the pool was terminated."""
        if self._pool.terminated:
            return
        limit = self._pool.size * _AHEAD
        while not self.exhausted and (everything or len(self._refs) < limit):
            calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
                ((item,), {}) for item in itertools.islice(self._items, self._chunksize)
            ]
            if calls:
                self._refs.append(self._pool.submit(self._func, calls))
            self.exhausted = len(calls) < self._chunksize
        if self.exhausted:
            self._pool.forget(self)

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result; raises what that call raised, or multiprocessing.TimeoutError.

        ValueError: the pool was terminated before all was submitted.
        """
        if not self._values:
            if not self._refs and not self.exhausted:
                raise ValueError("Pool not running")
            if not self._refs:
                raise StopIteration
            ready, _ = wait(self._refs[:1] if self._ordered else self._refs, num_returns=1, timeout=timeout)
            if not ready:
                raise PoolTimeoutError
            self._refs.remove(ready[0])
            self.fill()
            self._values.extend(get(ready[0]))
        value = self._values.popleft()
        if not isinstance(value, _Failure):
            return value
        try:
            value.raise_it()
        finally:
            del value  # as in raise_it


class _Worker:
    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.submitted = 0
        self.refs: list[Any] = []  # those that may not have ended


class Pool:
    """A pool of actors with the interface of `multiprocessing.Pool`. Not thread-safe.

    Args:
        processes: how many; the cluster's CPUs by default.
        initializer, initargs: called in each worker first.
        maxtasksperchild: a worker is replaced after that many chunks.
        context: ignored.
        ray_address: cluster to connect to, unless connected.
        ray_remote_args: options of the actors; num_cpus is 0 by default.

    Raises:
        ValueError: `processes` is not positive, or more than the cluster's CPUs.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
    ) -> None:
        if context is not None:
            warnings.warn("The 'context' argument is not supported and ignored.", stacklevel=2)
        if not is_initialized():
            init(address=ray_address or os.environ.get("RAY_ADDRESS"))
        cpus = int(cluster_resources().get("CPU", 0))
        if processes is None:
            processes = max(cpus, 1)
        if processes <= 0:
            raise ValueError("Processes in the pool must be >0.")
        if processes > max(cpus, 1):
            raise ValueError(f"Tried to start a pool with {processes} processes on a cluster of {cpus} CPUs.")
        if maxtasksperchild is not None and maxtasksperchild <= 0:
            raise ValueError("maxtasksperchild must be a positive int or None.")
        self.size = processes
        self._max_tasks = maxtasksperchild
        self._init = (initializer, tuple(initargs or ()))
        self._actor_class = remote(_PoolActor).options(**{"num_cpus": 0, **(ray_remote_args or {})})
        self.terminated = False
        self._closed = False
        self._imaps: list[_IMap] = []
        self._leaving: list[Any] = []  # answers of workers that were asked to leave, as far as they may still be there
        self._workers = [self._start() for _ in range(processes)]
        get([worker.actor.ping.remote() for worker in self._workers])

    def _start(self) -> _Worker:
        return _Worker(self._actor_class.remote(*self._init))

    def submit(self, func: Any, calls: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> Any:
        """Runs a chunk of calls on the worker with the least to do; for this module."""
        for worker in self._workers:
            if worker.refs:
                worker.refs = wait(worker.refs, num_returns=len(worker.refs), timeout=0)[1]
        index = min(range(len(self._workers)), key=lambda i: len(self._workers[i].refs))
        worker = self._workers[index]
        ref = worker.actor.run.remote(func, calls)
        worker.refs.append(ref)
        worker.submitted += 1
        if worker.submitted == self._max_tasks:
            if self._leaving:
                self._leaving = wait(self._leaving, num_returns=len(self._leaving), timeout=0)[1]
            self._leaving.append(worker.actor.__ray_terminate__.remote())
            self._workers[index] = self._start()
        return ref

    def _check_running(self) -> None:
        if self._closed:
            raise ValueError("Pool not running")

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """func(*args, **kwargs) on a worker."""
        return self.apply_async(func, args, kwargs).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult:
        """As `apply`, without waiting. Callbacks run in a thread of their own."""
        self._check_running()
        ref = self.submit(func, [(tuple(args or ()), kwargs or {})])
        return AsyncResult([ref], True, callback, error_callback)

    def map(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> Any:
        """[func(item) for item in iterable], on the workers."""
        return self.map_async(func, iterable, chunksize).get()

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult:
        """As `map`, without waiting."""
        return self._map(func, [((item,), {}) for item in iterable], chunksize, callback, error_callback)

    def starmap(self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None) -> Any:
        """[func(*args) for args in iterable], on the workers."""
        return self.starmap_async(func, iterable, chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult:
        """As `starmap`, without waiting."""
        return self._map(func, [(tuple(args), {}) for args in iterable], chunksize, callback, error_callback)

    def _map(
        self,
        func: Callable[..., Any],
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]],
        chunksize: int | None,
        callback: Callable[[Any], Any] | None,
        error_callback: Callable[[BaseException], Any] | None,
    ) -> AsyncResult:
        self._check_running()
        size = chunksize or max(1, -(-len(calls) // (self.size * _CHUNKS_PER_WORKER)))
        shared = put(func)  # pickled once
        refs = [self.submit(shared, calls[i : i + size]) for i in range(0, len(calls), size)]
        return AsyncResult(refs, False, callback, error_callback)

    def imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = 1) -> _IMap:
        """Iterates over func(item) in order; takes items as results are consumed."""
        return self._imap(func, iterable, chunksize, ordered=True)

    def imap_unordered(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = 1) -> _IMap:
        """As `imap`, in the order in which chunks end."""
        return self._imap(func, iterable, chunksize, ordered=False)

    def _imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None, ordered: bool) -> _IMap:
        self._check_running()
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        made = _IMap(self, func, iterable, chunksize or 1, ordered)
        if not made.exhausted:
            self._imaps.append(made)
        return made

    def forget(self, imap: _IMap) -> None:
        """Nothing of `imap` is left to be submitted; for this module."""
        if imap in self._imaps:
            self._imaps.remove(imap)

    def close(self) -> None:
        """Takes no more work; what was given is still done, then the workers leave."""
        if self._closed:
            return
        self._closed = True
        for imap in list(self._imaps):
            imap.fill(everything=True)
        self._leaving += [worker.actor.__ray_terminate__.remote() for worker in self._workers]

    def terminate(self) -> None:
        """Ends the workers at once."""
        self._closed = self.terminated = True
        for worker in self._workers:
            kill(worker.actor)
        self._workers.clear()
        self._imaps.clear()

    def join(self) -> None:
        """Waits until the workers have left. ValueError: neither closed nor terminated."""
        if not self._closed:
            raise ValueError("Pool is still running")
        if self._leaving:
            wait(self._leaving, num_returns=len(self._leaving))

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, *exc: object) -> None:
        self.terminate()

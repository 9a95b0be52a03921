"""Rules at work: a thread that kills when they say so, and the count of calls that some of them go by."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any

from ray._auto_init import ensure_session
from ray._core.call import MethodBase, set_call_observer
from ray.exceptions import RayError
from ray.util.chaos._errors import ChaosRuleError, NothingToKillError
from ray.util.chaos._report import Kill, Report
from ray.util.chaos._rules import KillGcs, KillNode, Rule
from ray.util.chaos._targets import Target, Targets

_LOOK_AGAIN_S = 0.02  # while a kill is due and there is nothing to kill: what runs where is seen only by asking
_REASON = "ray.util.chaos"


class _Clockwork:
    """When one rule wants its next kill. The moments depend on the seed alone."""

    def __init__(self, rule: Rule, number: int, seed: int) -> None:
        self.rule = rule
        self.number = number
        self.random = random.Random(f"{seed}/{number}")
        self.kills = 0
        self._calls = 0
        self._owed = 0  # kills that the calls so far have earned
        self._due = rule.after_s + self._interval() if rule.every_s is not None else None

    def _interval(self) -> float:
        assert self.rule.every_s is not None
        return self.rule.every_s + self.random.uniform(-self.rule.jitter_s, self.rule.jitter_s)

    @property
    def finished(self) -> bool:
        return self.rule.max_kills is not None and self.kills >= self.rule.max_kills

    def due(self) -> float | None:
        """Seconds after the begin; None: when enough calls have been made."""
        if self.finished:
            return None
        return self._due if self._due is not None else 0.0 if self._owed > 0 else None

    def on_call(self, name: str, now: float) -> bool:
        """Whether a kill is due because of this call."""
        rule = self.rule
        if rule.every_calls is None or self.finished or now < rule.after_s or not fnmatchcase(name, rule.calls):
            return False
        self._calls += 1
        if self._calls % rule.every_calls:
            return False
        self._owed += 1
        return True

    def on_kill(self, now: float) -> None:
        """It is done, and the next one follows from here."""
        self.kills += 1
        if self._due is None:
            self._owed -= 1
        else:  # one that came late does not make the next ones follow at once
            self._due = max(self._due, now) + self._interval()


class Injection:
    """Rules at work, from `with` to its end. Made by `inject`."""

    def __init__(self, rules: tuple[Rule, ...], seed: int) -> None:
        self.seed = seed
        self._rules = rules
        self._changed = threading.Condition()
        self._kills: list[Kill] = []
        self._clockworks: list[_Clockwork] = []
        self._restarts: list[tuple[float, int, KillGcs]] = []  # when a GCS is started again; a heap
        self._sequence = itertools.count()
        self._began = 0.0
        self._ended: float | None = None
        self._stopping = False
        self._error: BaseException | None = None
        self._targets: Targets | None = None
        self._thread: threading.Thread | None = None

    # --- for the program

    def __enter__(self) -> Injection:
        if self._thread is not None:
            raise RuntimeError("An injection can be entered once only: make another one.")
        self._targets = Targets(ensure_session())
        _claim(self)
        self._clockworks = [_Clockwork(rule, number, self.seed) for number, rule in enumerate(self._rules)]
        self._began = time.monotonic()
        if any(rule.every_calls is not None for rule in self._rules):
            set_call_observer(self._on_call)
        self._thread = threading.Thread(target=self._run, name="ray-chaos", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._thread is not None
        set_call_observer(None)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        self._ended = self._now()
        _release(self)
        if self._error is not None and error is None:
            raise self._error

    @property
    def report(self) -> Report:
        """What has been killed so far."""
        with self._changed:
            return Report(self.seed, tuple(self._kills), self._now() if self._ended is None else self._ended)

    def wait(self, kills: int, timeout_s: float) -> Report:
        """Until so many have been killed, over all rules.

        Raises:
            NothingToKillError: that took longer than `timeout_s` seconds, or the injection has ended; the text says
                what there is to kill.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while len(self._kills) < kills:
                left = deadline - time.monotonic()
                alive = self._thread is not None and self._thread.is_alive()
                if left <= 0 or not alive or not self._changed.wait(left):
                    break
            done = len(self._kills)
        if done < kills:
            assert self._targets is not None, "wait() belongs inside of the with statement"
            seen = self._targets.describe() if self._targets.connected else "The session has ended."
            raise NothingToKillError(f"{done} of {kills} kills within {timeout_s} s. {seen}")
        return self.report

    # --- in threads that submit calls

    def _on_call(self, called: Any) -> None:
        name = _name_of(called)
        now = self._now()
        with self._changed:
            if any([clockwork.on_call(name, now) for clockwork in self._clockworks]):
                self._changed.notify_all()

    # --- in the thread of the injection

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _run(self) -> None:
        try:
            self._work()
        except RayError as error:
            assert self._targets is not None
            if self._targets.connected:  # else the session has ended, and the rules with it
                self._error = error
        except BaseException as error:  # told to the program, at the end of its with statement
            self._error = error
        finally:
            with self._changed:
                self._changed.notify_all()

    def _work(self) -> None:
        assert self._targets is not None
        while True:
            with self._changed:
                due = self._next_due()
                while not self._stopping and (due is None or due > self._now()):
                    self._changed.wait(None if due is None else due - self._now())
                    due = self._next_due()
                if self._stopping:
                    break
                ready = [clockwork for clockwork in self._clockworks if _is_due(clockwork, self._now())]
            self._start_due_again(self._now())
            if not self._targets.connected:
                return
            killed = [self._attempt(clockwork) for clockwork in ready]
            if ready and not any(killed):
                with self._changed:
                    if not self._stopping:
                        self._changed.wait(_LOOK_AGAIN_S)
        self._start_due_again(float("inf"))  # no cluster is left without its GCS

    def _next_due(self) -> float | None:
        moments = [moment for clockwork in self._clockworks if (moment := clockwork.due()) is not None]
        if self._restarts:
            moments.append(self._restarts[0][0])
        return min(moments, default=None)

    def _start_due_again(self, now: float) -> None:
        assert self._targets is not None
        while self._restarts and self._restarts[0][0] <= now:
            self._targets.start_gcs_again(heapq.heappop(self._restarts)[2])

    def _attempt(self, clockwork: _Clockwork) -> bool:
        """Kills one thing that the rule applies to. False if there is none."""
        assert self._targets is not None
        rule = clockwork.rule
        target = _pick_and_kill(self._targets, rule, clockwork.random)
        if target is None:
            return False
        kill = _describe(target, clockwork.number, self._now())
        if isinstance(rule, KillGcs):
            heapq.heappush(self._restarts, (self._now() + rule.down_s, next(self._sequence), rule))
        with self._changed:
            clockwork.on_kill(self._now())
            self._kills.append(kill)
            self._changed.notify_all()
        if isinstance(rule, KillNode) and rule.then is not None:
            rule.then(kill)
        return True


def inject(*rules: Rule, seed: int | None = None) -> Injection:
    """Rules that are at work while the program is inside of a `with` statement.

    Args:
        rules: at least one. They work side by side, one kill at a time.
        seed: of the moments and choices; None: a new one, to be found in the report. The same seed gives the same
            moments, and the same choices out of the same candidates; how far the program has got by then is another
            matter.

    Returns:
        The `Injection`; its `report` says what was killed. At the end of the `with` a GCS that is
        away is started again.

    Raises:
        ChaosRuleError: no rule, or one without `every_s` and `every_calls`.
        RuntimeError: (at `with`) another injection is at work in this process.

    An error of the injection itself (a GCS that does not start again, a `then` that raises) is raised at the end of the
    `with`, unless the program raises one. If the session ends inside of it, nothing is killed any more.
    """
    if not rules:
        raise ChaosRuleError("inject() needs at least one rule.")
    for rule in rules:
        if not isinstance(rule, Rule) or type(rule) is Rule:
            raise ChaosRuleError(f"inject() takes rules such as KillWorker(every_s=1), got {rule!r}.")
        if rule.every_s is None and rule.every_calls is None:
            raise ChaosRuleError(f"{type(rule).__name__}: inject() must know when: give every_s or every_calls.")
    if seed is None:
        seed = random.SystemRandom().randrange(1 << 32)
    elif isinstance(seed, bool) or not isinstance(seed, int):
        raise ChaosRuleError(f"inject(): seed must be an integer or None, got {seed!r}.")
    return Injection(rules, seed)


def kill(rule: Rule, *, timeout_s: float = 10.0, seed: int | None = None) -> Kill:
    """Kills one thing that `rule` applies to, now; what it says about when and how often does not matter.

    Args:
        timeout_s: seconds to wait for something to kill.
        seed: of the choice, where there are several; None: a new one.

    Returns:
        What was killed. A GCS has been started again by then, after `down_s`.

    Raises:
        NothingToKillError: there was nothing in time; the text says what there is.
        ChaosRuleError: not a rule.
    """
    if not isinstance(rule, Rule) or type(rule) is Rule:
        raise ChaosRuleError(f"kill() takes a rule such as KillWorker(), got {rule!r}.")
    targets = Targets(ensure_session())
    chooser = random.Random(seed)
    began = time.monotonic()
    while (target := _pick_and_kill(targets, rule, chooser)) is None:
        if time.monotonic() - began >= timeout_s:
            raise NothingToKillError(f"Nothing for {rule!r} within {timeout_s} s. {targets.describe()}")
        time.sleep(_LOOK_AGAIN_S)
    killed = _describe(target, 0, time.monotonic() - began)
    if isinstance(rule, KillGcs):
        time.sleep(rule.down_s)
        targets.start_gcs_again(rule)
    if isinstance(rule, KillNode) and rule.then is not None:
        rule.then(killed)
    return killed


def _is_due(clockwork: _Clockwork, now: float) -> bool:
    due = clockwork.due()
    return due is not None and due <= now


def _pick_and_kill(targets: Targets, rule: Rule, chooser: random.Random) -> Target | None:
    """What was killed; None if there is nothing, or it was gone by then."""
    found = targets.find(rule)
    if not found:
        return None
    target = found[chooser.randrange(len(found))]
    return target if targets.kill(rule, target, _REASON) else None


def _describe(target: Target, rule: int, at_s: float) -> Kill:
    return Kill(target.kind, rule, at_s, target.node_id.hex(), target.pid, target.name, target.actor_id.hex())


def _name_of(called: Any) -> str:
    if isinstance(called, MethodBase):
        return f"{called._handle._ray_type.class_name}.{called._info.name}"
    return str(called._function.__name__)


# One at a time: the core tells one observer of calls, and reports of two would tell of each other's kills.
_active: Injection | None = None
_active_lock = threading.Lock()


def _claim(injection: Injection) -> None:
    global _active
    with _active_lock:
        if _active is not None:
            raise RuntimeError("Another injection is at work in this process: give all rules to one inject().")
        _active = injection


def _release(injection: Injection) -> None:
    global _active
    with _active_lock:
        if _active is injection:
            _active = None

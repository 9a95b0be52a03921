"""Faults on purpose: processes of the own cluster are killed by rule while a program runs, to see that it copes.

    from ray.util import chaos

    with chaos.inject(chaos.KillWorker(every_s=1.0, max_kills=5), seed=7) as injection:
        total = my_program()
    print(injection.report)

A kill is SIGKILL, as if the process had crashed, and is carried out by the raylet of its node. Killed are only workers
and actors of the caller's own job; a node takes along whatever runs there. docs/user/chaos.md has a longer example.
"""

from ray.util.chaos._errors import ChaosRuleError as ChaosRuleError
from ray.util.chaos._errors import NothingToKillError as NothingToKillError
from ray.util.chaos._injection import Injection as Injection
from ray.util.chaos._injection import inject as inject
from ray.util.chaos._injection import kill as kill
from ray.util.chaos._report import Kill as Kill
from ray.util.chaos._report import Report as Report
from ray.util.chaos._rules import KillActor as KillActor
from ray.util.chaos._rules import KillGcs as KillGcs
from ray.util.chaos._rules import KillNode as KillNode
from ray.util.chaos._rules import KillWorker as KillWorker
from ray.util.chaos._rules import Rule as Rule

__all__ = [
    "ChaosRuleError",
    "Injection",
    "Kill",
    "KillActor",
    "KillGcs",
    "KillNode",
    "KillWorker",
    "NothingToKillError",
    "Report",
    "Rule",
    "inject",
    "kill",
]

"""Runtime environments: what a job, task or actor wants its workers to be like.

An environment travels as canonical JSON with tasks and leases, so workers are shared exactly between equal ones. What a
task or actor asks for is merged over the environment of the process that submits it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import MutableMapping
from typing import Any

VARIABLE = "RAY_RUNTIME_ENV"  # how a worker is told its environment
_REFERENCE = r"\$\{(\w+)\}"


def merge(base: dict[str, Any], own: dict[str, Any] | None) -> dict[str, Any]:
    """`own` over `base`: field by field, and `env_vars` variable by variable."""
    if not own:
        return base
    merged = {**base, **own}
    variables = {**(base.get("env_vars") or {}), **(own.get("env_vars") or {})}
    if variables:
        merged["env_vars"] = variables
    return {name: value for name, value in merged.items() if value and name != "config"}


def to_json(env: dict[str, Any]) -> str:
    """The canonical text of an environment; nothing for an empty one."""
    return json.dumps(env, sort_keys=True) if env else ""


def adopt(environ: MutableMapping[str, str] = os.environ) -> dict[str, Any]:
    """Sets the variables of the environment that this worker was started for; that environment.

    `${NAME}` in a value stands for what the variable was before.
    """
    text = environ.get(VARIABLE)
    if not text:
        return {}
    env: dict[str, Any] = json.loads(text)
    before = dict(environ)
    for name, value in (env.get("env_vars") or {}).items():
        environ[name] = re.sub(_REFERENCE, lambda match: before.get(match[1], ""), value)
    return env

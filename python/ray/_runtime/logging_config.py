"""`LoggingConfig`: how the root logger of a job's driver and workers writes, and the facts about Ray in its records."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any

_ENCODINGS = ("TEXT", "JSON")
_STANDARD = frozenset(vars(logging.makeLogRecord({})))  # what every record has
_ALWAYS = ("asctime", "levelname", "message", "filename", "lineno")
_CONTEXT = (
    "job_id",
    "worker_id",
    "node_id",
    "actor_id",
    "actor_name",
    "task_id",
    "task_name",
    "task_func_name",
    "timestamp_ns",
)


@dataclass
class LoggingConfig:
    """How the root logger of the driver and the workers of a job writes.

    Attributes:
        encoding: "TEXT" or "JSON".
        log_level: of the root logger.
        additional_log_standard_attrs: names of attributes of LogRecord that are written, too.

    Raises:
        ValueError: an unknown encoding or attribute.
    """

    encoding: str = "TEXT"
    log_level: str = "INFO"
    additional_log_standard_attrs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.encoding not in _ENCODINGS:
            raise ValueError(f"Invalid encoding type: {self.encoding}. Valid encoding types are: {list(_ENCODINGS)}")
        unknown = [name for name in self.additional_log_standard_attrs if name not in _STANDARD]
        if unknown:
            raise ValueError(f"Not attributes of a log record: {unknown}. The valid ones are {sorted(_STANDARD)}")

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LoggingConfig:
        """From plain data; unknown keys are ignored."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})

    def apply(self) -> None:
        """Makes the root logger of this process write so."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter((_JsonFormatter if self.encoding == "JSON" else _TextFormatter)(self))
        handler.addFilter(_add_context)
        root = logging.getLogger()
        for old in root.handlers[:]:
            if isinstance(old.formatter, _Formatter):  # of an earlier session
                root.removeHandler(old)
        root.addHandler(handler)
        root.setLevel(self.log_level)
        ray_logger = logging.getLogger("ray")
        ray_logger.handlers.clear()
        ray_logger.propagate = True
        ray_logger.setLevel(self.log_level)


def _add_context(record: logging.LogRecord) -> bool:
    """Adds what is known of the running task. Always lets the record pass."""
    from ray._runtime.session import current_session

    record.timestamp_ns = time.time_ns()
    session = current_session()
    if session is None:
        return True
    record.job_id = session.job_id.hex()
    record.worker_id = session.worker_id.hex()
    record.node_id = session.node_id.hex()
    task = session.task
    if task is None:
        return True
    record.task_id = task.task_id.hex()
    record.task_name = task.task_name
    record.task_func_name = task.function_name
    if task.actor_id is not None:
        record.actor_id = task.actor_id.hex()
        record.actor_name = task.actor_name
    return True


class _Formatter(logging.Formatter):
    def __init__(self, config: LoggingConfig) -> None:
        super().__init__("%(asctime)s\t%(levelname)s %(filename)s:%(lineno)s -- %(message)s")
        self._more = [*config.additional_log_standard_attrs]

    def _facts(self, record: logging.LogRecord) -> dict[str, Any]:
        """What the user added with `extra`, what was asked for, and what Ray knows."""
        values = vars(record)
        facts = {name: values[name] for name in (*self._more, *_CONTEXT) if values.get(name) not in (None, "")}
        return facts | {name: value for name, value in values.items() if name not in _STANDARD and name not in _CONTEXT}


class _TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        facts = " ".join(f"{name}={value}" for name, value in self._facts(record).items() if name not in _ALWAYS)
        return f"{line} {facts}" if facts else line


class _JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        made: dict[str, Any] = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
        }
        if record.exc_info:
            made["exc_text"] = self.formatException(record.exc_info)
        if record.stack_info:
            made["stack_info"] = record.stack_info
        made |= self._facts(record)
        return json.dumps(made, default=str)

import json
import logging

import pytest

import ray
from ray._runtime.logging_config import _JsonFormatter, _TextFormatter


def test_bad_values():
    with pytest.raises(ValueError, match="encoding"):
        ray.LoggingConfig(encoding="XML")
    with pytest.raises(ValueError, match="nope"):
        ray.LoggingConfig(additional_log_standard_attrs=["nope"])


def test_round_trip():
    config = ray.LoggingConfig("JSON", "DEBUG", ["name"])
    assert ray.LoggingConfig.from_dict({**config.to_dict(), "unknown": 1}) == config


def _record(**extra):
    return logging.getLogger("x").makeRecord("x", logging.INFO, "dir/f.py", 7, "said %s", ("it",), None, extra=extra)


def test_json_lines():
    made = json.loads(
        _JsonFormatter(ray.LoggingConfig("JSON", additional_log_standard_attrs=["name"])).format(_record(mine=1))
    )
    assert made["message"] == "said it" and made["levelname"] == "INFO"
    assert (made["filename"], made["lineno"], made["name"], made["mine"]) == ("f.py", 7, "x", 1)


def test_text_lines():
    line = _TextFormatter(ray.LoggingConfig()).format(_record(job_id="01"))
    assert line.endswith("INFO f.py:7 -- said it job_id=01")

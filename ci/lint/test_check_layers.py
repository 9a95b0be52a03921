"""The layers check finds what it is for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import check_layers

TABLE = """
[modules]
"util" = { level = 0.0, may_include = [] }
"common" = { level = 1.0, may_include = ["util"] }
"async" = { level = 1.0, may_include = ["util"] }
"wire" = { level = 2.0, may_include = ["common"] }
"rpc/core" = { level = 3.0, may_include = ["wire"] }
[external]
"grpc" = ["rpc/core"]
"""


@pytest.fixture
def cpp(tmp_path: Path):
    """A function that writes one file under a C++ tree and gives the problems found."""
    (tmp_path / "layers.toml").write_text(TABLE)

    def check(path: str, text: str) -> list[str]:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return [p.partition(": ")[2] for p in check_layers.check_cpp(tmp_path)]

    return check


@pytest.mark.parametrize(
    ("path", "include"),
    [
        ("common/a.cc", '"ray/util/x.h"'),
        ("rpc/core/deep/a.cc", '"ray/util/x.h"'),
        ("rpc/core/a.h", '"ray/rpc/core/deep/b.h"'),
        ("wire/a.cc", '"ray/v1/types.pb.h"'),
        ("rpc/core/a.cc", "<grpcpp/grpcpp.h>"),
        ("util/a.cc", "<vector>"),
        ("async/a_test.cc", '"ray/common/x.h"'),
    ],
)
def test_allowed(cpp, path, include):
    assert cpp(path, f"#include {include}\n") == []


@pytest.mark.parametrize(
    ("path", "include", "why"),
    [
        ("util/a.h", '"ray/common/x.h"', "util may not include common"),
        ("async/a.h", '"ray/common/x.h"', "async may not include common"),
        ("wire/a.cc", '"ray/rpc/core/x.h"', "wire may not include rpc/core"),
        ("wire/a_test.cc", '"ray/rpc/core/x.h"', "wire may not include rpc/core"),
        ("common/a.cc", '"ray/v1/types.pb.h"', "common may not see protobuf"),
        ("wire/a.cc", "<grpcpp/grpcpp.h>", "wire may not include grpcpp"),
        ("wire/a.cc", '"ray/nowhere/x.h"', "in no module"),
        ("nowhere/a.cc", '"ray/util/x.h"', "in no module"),
        ("wire/a.cc", '"x.h"', "own headers"),
    ],
)
def test_refused(cpp, path, include, why):
    problems = cpp(path, f"// first line\n#include {include}\n")
    assert len(problems) == 1
    assert why in problems[0]


def test_table_must_go_down():
    table = {"modules": {"a": {"level": 1, "may_include": ["b"]}, "b": {"level": 1, "may_include": ["c"]}}}
    errors = check_layers.CppLayers(table).errors
    assert len(errors) == 2
    assert "not on a lower level" in errors[0]
    assert "no row" in errors[1]


@pytest.fixture
def python(tmp_path: Path):
    table = tmp_path / "table.toml"
    table.write_text('groups = [["ray.exceptions"], ["ray._core"], ["ray.api"], ["ray"]]')
    root = tmp_path / "ray"

    def check(path: str, text: str) -> list[str]:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return list(check_layers.check_python(root, table))

    return check


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("api.py", "from ray import exceptions\nfrom ray._core.ids import X\nimport ray._core\n"),
        ("_core/ids.pyx", "from ray import exceptions\nfrom ray._core.x cimport y\n"),
        ("_core/ids.py", "def f():\n    from ray import api\n"),
        ("_core/ids.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ray.api import init\n"),
        ("__init__.py", "from ray.api import init as init\n"),
        ("exceptions.py", "import rayon\n"),
    ],
)
def test_python_allowed(python, path, text):
    assert python(path, text) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("exceptions.py", "from ray import api\n"),
        ("exceptions.py", "from .api import init\n"),
        ("_core/ids.py", "import ray\n"),
        ("_core/ids.py", "class A:\n    from ..api import init\n"),
        ("_core/ids.pyx", "from ray.api import init\n"),
        ("_core/ids.pxd", "cimport ray.api\n"),
        ("_core/ids.pyx", "from ray import (\n    exceptions,\n    api,\n)\n"),
        ("other.py", "from ray import exceptions\n"),
    ],
)
def test_python_refused(python, path, text):
    assert len(python(path, text)) == 1


def test_this_repository():
    script = Path(__file__).parent / "check_layers.py"
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr

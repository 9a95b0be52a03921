"""Checks that the sources keep to the layers.

C++ includes are held against cpp/ray/layers.toml, Python imports against ci/lint/python_layers.toml. Prints
each edge that is not allowed as "file:line: why" and exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
CYTHON_IMPORT = re.compile(
    r"^(?:from\s+([\w.]+)\s+c?import\s+(?:\(([^)]*)\)|([^\n#]*))|c?import\s+([\w.]+))", re.MULTILINE
)


class CppLayers:
    """The table of layers.toml, with the closure of what each module may include."""

    def __init__(self, table: dict) -> None:
        self.modules: dict[str, dict] = table["modules"]
        self.external: dict[str, list[str]] = table.get("external", {})
        self.errors: list[str] = []
        for name, row in self.modules.items():
            for lower in row["may_include"]:
                if lower not in self.modules:
                    self.errors.append(f"layers.toml: {name} lists {lower}, which has no row")
                elif self.modules[lower]["level"] >= row["level"]:
                    self.errors.append(f"layers.toml: {name} lists {lower}, which is not on a lower level")
        self.closure = {} if self.errors else {name: self._reach(name) for name in self.modules}

    def _reach(self, name: str) -> set[str]:
        reached = {name}
        for lower in self.modules[name]["may_include"]:
            reached |= self._reach(lower)
        return reached

    def module_of(self, path: str) -> str | None:
        """The module of a path relative to cpp/ray: the longest row that is a folder above it."""
        parts = path.split("/")[:-1]
        while parts:
            if "/".join(parts) in self.modules:
                return "/".join(parts)
            parts.pop()
        return None

    def check_include(self, source: str, bracket: str, header: str) -> str | None:
        """Why the file `source` (relative to cpp/ray) may not include `header`; None if it may."""
        module = self.module_of(source)
        if module is None:
            return f"{source} is in no module of layers.toml"
        if header.startswith("ray/v1/"):
            return None if "wire" in self.closure[module] else f"{module} may not see protobuf messages"
        if header.startswith("ray/"):
            target = self.module_of(header.removeprefix("ray/"))
            if target is None:
                return f"{header} is in no module of layers.toml"
            is_test = source.endswith(("_test.cc", "_bench.cc"))
            if is_test and self.modules[target]["level"] <= self.modules[module]["level"]:
                return None  # a test may join two ends, such as a client and its server; nothing depends on tests
            if target not in self.closure[module]:
                return f"{module} may not include {target} ({header})"
            return None
        for prefix, allowed in self.external.items():
            if header.startswith(prefix) and module not in allowed:
                return f"{module} may not include {header}"
        if bracket == '"':
            return f'own headers are included as "ray/<module>/x.h", not "{header}"'
        return None


def check_cpp(root: Path) -> Iterator[str]:
    layers = CppLayers(tomllib.loads((root / "layers.toml").read_text()))
    yield from layers.errors
    if layers.errors:
        return
    for path in sorted([*root.rglob("*.h"), *root.rglob("*.cc")]):
        source = path.relative_to(root).as_posix()
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if (match := INCLUDE.match(line)) and (why := layers.check_include(source, match[1], match[2])):
                yield f"{path}:{number}: {why}"


class PythonLayers:
    def __init__(self, table: dict) -> None:
        self.rank = {name: i for i, group in enumerate(table["groups"]) for name in group}

    def rank_of(self, module: str) -> int | None:
        """Rank of the longest listed name that is `module` or above it; the top package only by its own name."""
        parts = module.split(".")
        while parts:
            name = ".".join(parts)
            if name in self.rank and (len(parts) > 1 or module == name):
                return self.rank[name]
            parts.pop()
        return None

    def check_import(self, module: str, imported: str) -> str | None:
        """Why `module` may not import `imported` at load time; None if it may."""
        own, other = self.rank_of(module), self.rank_of(imported)
        if own is None:
            return f"{module} is in no group of python_layers.toml"
        if other is not None and other > own:
            return f"{module} may not import {imported}, which is higher"
        return None


def load_time_imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of each import that runs when the module is loaded."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for branch in node.orelse:
                yield from load_time_imports(branch, package)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            for alias in node.names:
                # `from ray import x` imports the module ray.x, if there is one.
                yield node.lineno, f"{base}.{alias.name}"
        else:
            yield from load_time_imports(node, package)


def cython_imports(text: str) -> Iterator[tuple[int, str]]:
    """The same for Cython, which `ast` cannot parse: imports and cimports that are not indented."""
    for match in CYTHON_IMPORT.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match[4]:
            yield line, match[4]
            continue
        for name in (match[2] or match[3]).split(","):
            if words := name.split():
                yield line, f"{match[1]}.{words[0]}"


def check_python(root: Path, table: Path) -> Iterator[str]:
    layers = PythonLayers(tomllib.loads(table.read_text()))
    for path in sorted([*root.rglob("*.py"), *root.rglob("*.pyx"), *root.rglob("*.pxd")]):
        parts = ["ray", *path.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        package = module if is_package else module.rpartition(".")[0]
        if path.suffix == ".py":
            imports = list(load_time_imports(ast.parse(path.read_text(), str(path)), package))
        else:
            imports = list(cython_imports(path.read_text()))
        for number, imported in imports:
            if imported.split(".")[0] == "ray" and (why := layers.check_import(module, imported)):
                yield f"{path}:{number}: {why}"


def main() -> int:
    repo = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cpp", type=Path, default=repo / "cpp" / "ray", help="folder with layers.toml and the C++ modules"
    )
    parser.add_argument("--python", type=Path, default=repo / "python" / "ray", help="the Python package")
    parser.add_argument("--python-table", type=Path, default=repo / "ci" / "lint" / "python_layers.toml")
    args = parser.parse_args()
    problems = [*check_cpp(args.cpp), *check_python(args.python, args.python_table)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

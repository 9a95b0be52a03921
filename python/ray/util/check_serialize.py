"""Finding out which part of something cannot be pickled."""

from __future__ import annotations

import inspect
import io
import sys
from typing import Any, NamedTuple, TextIO

from ray import cloudpickle


class FailureTuple(NamedTuple):
    """Something that cannot be pickled.

    Attributes:
        obj: the object.
        path: names that lead to it from what was inspected; the last one is its own.
        parent: what it was found in.
    """

    obj: Any
    path: tuple[str, ...]
    parent: Any

    @property
    def name(self) -> str:
        """What it is called where it was found."""
        return self.path[-1]

    def __hash__(self) -> int:
        return hash((id(self.obj), self.path, id(self.parent)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FailureTuple) and (id(self.obj), self.path, id(self.parent)) == (
            id(other.obj),
            other.path,
            id(other.parent),
        )

    def __repr__(self) -> str:
        return f"FailureTuple({' -> '.join(self.path)}: {self.obj!r}, parent={self.parent!r})"


def _error_of(obj: Any) -> str | None:
    # Whatever a user's __reduce__ raises means that it cannot be pickled.
    try:
        cloudpickle.dumps(obj)
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    return None


def _members(obj: Any) -> list[tuple[str, Any]]:
    if inspect.isfunction(obj):
        closure = inspect.getclosurevars(obj)
        return [*closure.nonlocals.items(), *closure.globals.items()]
    if isinstance(obj, dict):
        return [(repr(key), value) for key, value in obj.items()]
    if isinstance(obj, (list, tuple, set, frozenset)):
        return [(f"[{i}]", value) for i, value in enumerate(obj)]
    if isinstance(obj, type):
        return [(name, value) for name, value in vars(obj).items() if not name.startswith("__")]
    found = list(getattr(obj, "__dict__", {}).items())
    for cls in type(obj).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if hasattr(obj, slot):
                found.append((slot, getattr(obj, slot)))
    return found


def _walk(
    obj: Any, path: tuple[str, ...], parent: Any, depth: int, out: TextIO, failures: set[FailureTuple], seen: set[int]
) -> None:
    pad = "    " * len(path)
    blamed = False
    if depth > 0:
        for member_name, member in _members(obj):
            if id(member) in seen:
                continue
            error = _error_of(member)
            if error is None:
                continue
            seen.add(id(member))
            blamed = True
            out.write(f"{pad}{member_name}: {type(member).__name__} cannot be serialized ({error})\n")
            _walk(member, (*path, member_name), obj, depth - 1, out, failures, seen)
    if not blamed:
        failures.add(FailureTuple(obj, path, parent))


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Looks for the members that keep something from being pickled, and prints them as a tree.

    Args:
        depth: how many levels of members to look into.
        print_file: where the tree goes; standard output by default.

    Returns:
        Whether it can be pickled, and what cannot.
    """
    out = print_file or sys.stdout
    label = name or getattr(base_obj, "__qualname__", None) or type(base_obj).__name__
    error = _error_of(base_obj)
    if error is None:
        out.write(f"Checking serializability of {label!r}: it can be serialized.\n")
        return True, set()
    failures: set[FailureTuple] = set()
    out.write(f"Checking serializability of {label!r}: {error}\n")
    _walk(base_obj, (label,), None, depth, out, failures, {id(base_obj)})
    names = ", ".join(sorted(repr(f.name) for f in failures))
    out.write(f"Cannot be serialized: {names}. Leave it out, or define __reduce__ or a custom serializer for it.\n")
    return False, failures


def explain(obj: Any) -> str:
    """The tree of `inspect_serializability` as text, for error messages."""
    out = io.StringIO()
    inspect_serializability(obj, print_file=out)
    return out.getvalue()

"""Other languages. Workers here run Python: the names are kept so that programs get a clear answer."""

from __future__ import annotations

from typing import Any, NoReturn


class Language:
    """The languages of Ray's workers; `value()` is the number of one."""

    PYTHON: Language
    JAVA: Language
    CPP: Language

    def __init__(self, name: str, number: int) -> None:
        self._name = name
        self._number = number

    def value(self) -> int:
        """The number that stands for it."""
        return self._number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Language) and other._number == self._number

    def __hash__(self) -> int:
        return hash(self._number)

    def __repr__(self) -> str:
        return f"Language.{self._name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (Language, self._name))


Language.PYTHON = Language("PYTHON", 0)
Language.JAVA = Language("JAVA", 1)
Language.CPP = Language("CPP", 2)


def _no_worker(language: str) -> NoReturn:
    raise RuntimeError(f"There are no {language} workers: this build of Ray runs Python only.")


def java_function(class_name: str, function_name: str) -> Any:
    """A function of a Java worker. Raises RuntimeError: there are none."""
    _no_worker("Java")


def java_actor_class(class_name: str) -> Any:
    """An actor class of a Java worker. Raises RuntimeError: there are none."""
    _no_worker("Java")


def cpp_function(function_name: str) -> Any:
    """A function of a C++ worker. Raises RuntimeError: there are none."""
    _no_worker("C++")


def cpp_actor_class(create_function_name: str, class_name: str) -> Any:
    """An actor class of a C++ worker. Raises RuntimeError: there are none."""
    _no_worker("C++")

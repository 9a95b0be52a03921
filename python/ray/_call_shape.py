"""What arguments a function takes, as plain data: checked at every call and sent along with actor handles."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class CallShape(NamedTuple):
    """The parameters of a function, without defaults' values.

    Attributes:
        name: for messages.
        positional: names of the parameters that can be given by position.
        positional_only: how many of them cannot be given by keyword.
        required: how many of them have no default (they come first).
        keyword_only: name -> whether it must be given.
        var_positional, var_keyword: takes *args, **kwargs.
    """

    name: str
    positional: tuple[str, ...]
    positional_only: int
    required: int
    keyword_only: dict[str, bool]
    var_positional: bool
    var_keyword: bool

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises TypeError, worded as Python's own, if a call with these arguments would not bind."""
        given = len(args)
        if (
            not kwargs
            and not self.keyword_only
            and self.required <= given
            and (given <= len(self.positional) or self.var_positional)
        ):
            return
        if given > len(self.positional) and not self.var_positional:
            raise TypeError(f"{self.name}() takes {len(self.positional)} positional argument(s) but {given} were given")
        by_position = self.positional[:given]
        by_keyword = self.positional[self.positional_only :]
        for key in kwargs:
            if key in by_keyword:
                if key in by_position:
                    raise TypeError(f"{self.name}() got multiple values for argument {key!r}")
            elif key not in self.keyword_only and not self.var_keyword:
                raise TypeError(f"{self.name}() got an unexpected keyword argument {key!r}")
        missing = [
            key
            for i, key in enumerate(self.positional[: self.required])
            if i >= given and (i < self.positional_only or key not in kwargs)
        ]
        missing += [key for key, must in self.keyword_only.items() if must and key not in kwargs]
        if missing:
            raise TypeError(f"{self.name}() missing required argument(s): {', '.join(map(repr, missing))}")


ANY = CallShape("call", (), 0, 0, {}, True, True)


def of(function: Callable[..., Any], name: str, *, skip_self: bool = False) -> CallShape:
    """The shape of `function`; `skip_self` leaves out the first parameter of a method.

    Functions without a readable signature (some built-in ones) accept anything here.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ANY._replace(name=name)
    if skip_self and parameters and parameters[0].kind in _POSITIONAL:
        parameters = parameters[1:]
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    return CallShape(
        name,
        tuple(p.name for p in positional),
        sum(p.kind is inspect.Parameter.POSITIONAL_ONLY for p in positional),
        sum(p.default is inspect.Parameter.empty for p in positional),
        {p.name: p.default is inspect.Parameter.empty for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY},
        any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters),
        any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters),
    )

"""Where a function wants several things, one alone is a list of one, as on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from .errors import BadValue

P = ParamSpec("P")
R = TypeVar("R")


def several(value: Any) -> list[Any]:
    """Return a parameter that the decorator has made several, as a list."""
    return list(value)


def one_or_many(
    *names: str, split: tuple[str, ...] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that makes lists of some parameters.

    A text that is taken for a sequence would be read letter by letter.

    Args:
        names: parameters that want several things. split: further ones, whose texts are
            comma-separated on the command line, and here.

    Raises:
        BadValue: when such a function is called with what is neither one thing nor several.

    >>> @one_or_many("names", split=("seeds",))
    ... def said(names=(), seeds=()):
    ...     return names, seeds
    >>> said("straw hat", seeds="1,2"), said(["a", "b"], 3)
    ((['straw hat'], ['1', '2']), (['a', 'b'], [3]))
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def called(*positional: P.args, **named: P.kwargs) -> R:
            bound = signature.bind(*positional, **named)
            for name in (*names, *split):
                if name in bound.arguments:
                    bound.arguments[name] = _many(bound.arguments[name], name, name in split)
            return function(*bound.args, **bound.kwargs)

        return called

    return decorate


def _many(value: Any, name: str, split: bool) -> Any:
    if isinstance(value, str) and split:
        return [word.strip() for word in value.split(",") if word.strip()]
    if value is None or isinstance(value, (str, Path, bytes)) or hasattr(value, "convert"):
        return [] if value is None else [value]  # a picture of Pillow can be converted
    if isinstance(value, (int, float)) or getattr(value, "ndim", 1) > 1:  # one photo as an array
        return [value]
    if isinstance(value, Iterable):
        return value
    raise BadValue(f"{name} is {value!r}.", "Pass one, or a list of them.")

"""How many training images a class: a number, or all there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from ..pipeline.errors import UserError

ALL: Literal["all"] = "all"


def _number_or_all(value: Any) -> Any:
    """Raise one plain error where the two types of the union would raise two."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if value == ALL:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("it is a number of images a class, or all")


# with "all" classes may have different numbers of images
Shots = Annotated[int | Literal["all"], BeforeValidator(_number_or_all)]


def read_shots(word: str) -> Shots | None:
    """Return what is typed after ``--shots``; None for nothing.

    Raises:
        UserError: it is neither a number nor ``all``.

    >>> read_shots("16"), read_shots("all"), read_shots("")
    (16, 'all', None)
    """
    text = word.strip().lower()
    if not text:
        return None
    if text == ALL:
        return ALL
    if not text.isdecimal():
        raise UserError(f"--shots takes a number of images a class, or all, not {word!r}.")
    return int(text)


def shots_of(about: Mapping[str, Any]) -> Shots:
    """Return the shots that an adapter's description names.

    Raises:
        UserError: it names neither a number nor all.

    >>> shots_of({"shots": 4}), shots_of({"shots": "all"})
    (4, 'all')
    """
    shots = about.get("shots")
    try:
        return _number_or_all(shots)
    except ValueError:
        raise UserError(f"The run was trained with {shots!r} shots, which is no number.") from None


def in_names(shots: Shots) -> str:
    """Return the shots as the name of a folder has them.

    >>> in_names(16), in_names("all")
    ('16shot', 'all-shots')
    """
    return "all-shots" if shots == ALL else f"{shots}shot"


def in_words(shots: Shots) -> str:
    """Return the shots as a title has them.

    >>> in_words(1), in_words(16), in_words("all")
    ('1 shot', '16 shots', 'all training photos')
    """
    if shots == ALL:
        return "all training photos"
    return f"{shots} {'shot' if shots == 1 else 'shots'}"

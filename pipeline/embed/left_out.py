"""Photos that cannot be read: which, of how many, and whether that ends the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import UserError
from ..pictures import PictureError, Unreadable, unreadable
from ..progress import step

_SHOWN = 5  # names of photos that are left out


def left_out(
    files: Sequence[Path], contents: Sequence[str | PictureError], bad: Mapping[str, PictureError]
) -> list[Unreadable]:
    """Return the files that cannot be read, in order.

    Args:
        contents: the hash of each file, or why there is none.
        bad: why a content cannot be read as a picture.
    """
    errors = [bad.get(c) if isinstance(c, str) else c for c in contents]
    return [unreadable(path, error) for path, error in zip(files, errors) if error is not None]


def cannot_be_read(left_out: Sequence[Unreadable], whole: int) -> UserError:
    """Build the error that stops at photos which cannot be read."""
    more = f"; {len(left_out):,} of {whole:,} photos in all" if len(left_out) > 1 else ""
    return UserError(
        f"The image {left_out[0].path} cannot be read: {left_out[0].reason}{more}.",
        "Repair or remove it, or leave out --strict to go on without.",
    )


def check_there(left_out: Sequence[Unreadable], whole: int) -> None:
    """Stop where photos that a data set lists do not exist: then it is not whole.

    Raises:
        UserError: one is absent; it is named.
    """
    absent = [entry for entry in left_out if entry.absent]
    if absent:
        raise UserError(
            f"{len(absent):,} of {whole:,} photos are not there, the first: {absent[0].path}.",
            "`aape datasets check` lists what is missing.",
        )


def say_left_out(left_out: Sequence[Unreadable], whole: int, what: str) -> str:
    """Say on standard error how many photos are left out, and which; return the sentence.

    ``what`` they are: "training photos". An empty string if there are none.
    """
    once = list(dict.fromkeys(left_out))
    if not once:
        return ""
    shown = "; ".join(map(str, once[:_SHOWN])) + ("; …" if len(once) > _SHOWN else "")
    sentence = f"{len(once):,} of {whole:,} {what} cannot be read and are left out: {shown}"
    step(sentence)
    return sentence

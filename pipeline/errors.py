"""The errors a user reads: one sentence that says what is wrong, one that says what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input or a broken environment, as opposed to a bug.

    The command line prints ``message`` and ``hint`` and exits with status 2. Nothing that was
    finished before it was raised is lost.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadValue(UserError, ValueError):
    """Bad input to an estimator, which libraries such as scikit-learn expect as a ValueError."""


def require_text(text: str, what: str) -> None:
    r"""Refuse what is no text: bytes of a command line that are not UTF-8, or half a character.

    >>> require_text("caf\udce9", "The question")
    Traceback (most recent call last):
        ...
    aape.pipeline.errors.UserError: The question is no text in UTF-8: 'caf\udce9'. Write it anew.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{what} is no text in UTF-8: {text!r}.", "Write it anew.") from error


def unknown_name(kind: str, name: str, known: Iterable[str], also: Iterable[str] = ()) -> UserError:
    """Build the error for a name that is not in a closed list: the nearest named, all listed.

    ``also`` are names that may be meant, too, and are too many to list.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, [*names, *sorted(also)], n=1, cutoff=0.5)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    return UserError(f"Unknown {kind} {name!r}.", f"{guess}Known: {', '.join(names)}.")


def missing_extra(package: str, extra: str, purpose: str) -> UserError:
    """Build the error for an optional dependency that is not installed."""
    return UserError(
        f"{purpose} needs the package {package!r}, which is not installed.",
        f"Install it with: pip install 'aape[{extra}]'.",
    )

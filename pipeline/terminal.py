"""The way to the terminal: text of strangers is shown there and cannot steer it.

An escape sequence in a class name, a file name or an answer could clear the screen, change what
was printed before, or set the title of a window. Whatever is printed goes through here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from unicodedata import category

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# controls, marks of direction and the like, lone surrogates, other ends of lines
_STEERING = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# the ends of lines and columns; joiners of letters and of emoji, which move nothing
_HARMLESS = frozenset("\n\t\u200c\u200d")
_WHOLE = 10_000  # columns: no line of a table is as wide


def visible(text: str) -> str:
    r"""Return text in which control characters are spelled out.

    >>> print(visible("a\x1b[2Jb\u202ec"))
    a\x1b[2Jb\u202ec
    """
    if text.isprintable():
        return text
    return "".join(ascii(c)[1:-1] if _steers(c) else c for c in text)


def _steers(character: str) -> bool:
    return character not in _HARMLESS and category(character) in _STEERING


def echo(text: object = "", err: bool = False) -> None:
    """Print a line on standard output, or on standard error."""
    import typer

    typer.echo(visible(str(text)), err=err)


def json_text(value: Any, indent: int | None = None) -> str:
    r"""Return JSON as readable as can be: letters stay, what could steer a terminal is escaped.

    NaN and the infinities, which JSON does not have, become null.

    >>> json_text(["é", "\x9b2J", float("nan")])
    '["é", "\\u009b2J", null]'
    """
    from .files import finite

    text = json.dumps(finite(value), indent=indent, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if _steers(c) else c for c in text)


def console(**options: Any) -> Console:
    """Return a console of rich in which only rich's own codes steer the terminal."""
    from rich.console import Console

    class Clean(Console):
        def render(self, *words: Any, **named: Any) -> Iterable[Any]:
            for segment in super().render(*words, **named):
                if segment.control:
                    yield segment
                else:
                    yield segment._replace(text=visible(segment.text))

    return Clean(**options)


def output(**options: Any) -> Console:
    """Return standard output for tables: lines fit a terminal, or the width that COLUMNS says.

    In a pipe or a file without COLUMNS every line is whole, so that ``grep`` finds rows.
    """
    found = console(**options)
    asked = os.environ.get("COLUMNS", "")
    if found.is_terminal or (asked.isdecimal() and int(asked) > 0):
        return found
    return console(**{"width": _WHOLE, **options})


def table(found: Console, **options: Any) -> Table:
    """Return an empty table: with lines and bold names on a terminal, else plain text."""
    from rich.box import HEAVY_HEAD
    from rich.table import Table

    if found.is_terminal:
        return Table(**{"box": HEAVY_HEAD, **options})
    plain = {"box": None, "header_style": "", "title_style": "", "pad_edge": False}
    return Table(**{**options, **plain})

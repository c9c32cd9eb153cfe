"""Cells of CSV that a spreadsheet would run: a class called ``=HYPERLINK(…)`` stays a name.

Spreadsheets take a cell that begins with one of ``= + - @``, a tab or a carriage return for a
formula. An apostrophe before it says that it is text (OWASP, "CSV injection"). Cells that begin
with apostrophes before such a character get one more, so that :func:`original` undoes it exactly.
"""

from __future__ import annotations

import re
from typing import TypeVar

T = TypeVar("T")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_QUOTED = re.compile(r"'+[=+\-@\t\r]")


def harmless(cell: T) -> T | str:
    """Return a cell as a spreadsheet may see it: numbers as they are, text never a formula.

    >>> harmless("=1+1"), harmless("owl"), harmless(-0.5)
    ("'=1+1", 'owl', -0.5)
    """
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def original(text: str) -> str:
    """Return the text that :func:`harmless` was given.

    >>> original("'=1+1"), original("''tis")
    ('=1+1', "''tis")
    """
    return text[1:] if _QUOTED.match(text) else text

"""A number before its noun, as people write it."""

from __future__ import annotations


def counted(number: int, one: str, several: str) -> str:
    """Return a number with the words for one or for several.

    >>> counted(1, "photo is", "photos are"), counted(1200, "row", "rows")
    ('1 photo is', '1,200 rows')
    """
    return f"{number:,} {one if number == 1 else several}"

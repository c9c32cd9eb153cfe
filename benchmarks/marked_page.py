"""Tables that a script writes into a page of the documentation, between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write_between(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replace what lies between ``<!-- NAME -->`` and ``<!-- end of NAME -->`` by these lines."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{page} has no place for a table: write {begin} and {end} there.")
    page.write_text("\n".join([before + begin, *lines, end + after]), encoding="utf-8")

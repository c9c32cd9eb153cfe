"""The table of injections in a page of the documentation, between two marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..marked_page import write_between
from .cell import Verdict


def write_page(path: Path, verdicts: Sequence[Verdict], seed: int, disk: str) -> None:
    """Replace what is between the marks by the counts of these injections."""
    command = f"python -m benchmarks.faults --count {len(verdicts)} --seed {seed}"
    lines = [
        f"`{command}`, each on {disk}.",
        "",
        *_table("what was done", verdicts, lambda verdict: verdict.kind),
        "",
        *_table("to which command", verdicts, lambda verdict: f"`{verdict.command}`"),
    ]
    write_between(path, "faults", lines)


def _table(title: str, verdicts: Sequence[Verdict], name: Callable[[Verdict], str]) -> list[str]:
    rows: dict[str, list[int]] = {}
    for verdict in verdicts:
        row = rows.setdefault(name(verdict), [0, 0])
        row[0] += 1
        row[1] += bool(verdict.problem)
    rows = dict(sorted(rows.items()))
    rows["all"] = [sum(row[place] for row in rows.values()) for place in (0, 1)]
    return [
        f"| {title} | injected | survived | lost |",
        "|---|---|---|---|",
        *(f"| {key} | {n:,} | {n - lost:,} | {lost:,} |" for key, (n, lost) in rows.items()),
    ]

"""The table of mutants in a page of the documentation, between two marks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..marked_page import write_between

REASONS = Path(__file__).with_name("equivalent.json")


def reasons() -> dict[tuple[str, str, str], str]:
    """Return why a mutant need not be killed, by its change."""
    rows = json.loads(REASONS.read_text(encoding="utf-8"))
    return {(row["module"], row["was"], row["now"]): row["why"] for row in rows}


def write_page(
    path: Path, records: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]], seed: int
) -> None:
    """Replace what is between the marks by the counts, and the survivors with their reasons.

    Args:
        path: the page.
        records: one a mutant: ``place``, ``module``, ``line``, ``was``, ``now``, ``ended``, which
            is failed, late, passed, or gone with its line.
        before: those of an earlier run, or none.
        seed: by which they were drawn.
    """
    known = reasons()
    places = [*dict.fromkeys(record["place"] for record in records), ""]
    lines = [
        f"Drawn with `--seed {seed}`, the first of each place; a larger `--count` has them, too.",
        "",
        "| place | mutants | killed | survived before | survive now | of these explained |",
        "|---|---|---|---|---|---|",
        *(_row(place, records, before) for place in places),
        "",
        *(
            f"- `{r['module']}`: `{r['was']}` → `{r['now'] or 'nothing'}`: "
            f"{known.get((r['module'], r['was'], r['now']), 'not explained')}."
            for r in records
            if r["ended"] == "passed"
        ),
    ]
    write_between(path, "mutants", lines)


def _row(place: str, records: Sequence[dict], before: Sequence[dict]) -> str:
    here, there = (
        [r for r in rows if not place or r["place"] == place] for rows in (records, before)
    )
    alive = [(r["module"], r["was"], r["now"]) for r in here if r["ended"] == "passed"]
    explained = sum(change in reasons() for change in alive)
    earlier = f"{sum(r['ended'] == 'passed' for r in there)} of {len(there)}" if there else "–"
    killed = sum(r["ended"] in ("failed", "late") for r in here)
    counts = [place or "all", len(here), killed, earlier, len(alive), explained]
    return f"| {' | '.join(map(str, counts))} |"

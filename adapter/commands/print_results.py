"""The results table on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ...pipeline.commands.options import print_json
from ..results import Results

_STYLES = {"ours": "bold green", "control": "yellow", "published": "dim"}


def print_results(results: Results, console: Console | None = None) -> None:
    """Print methods by metrics, the intervals of the ranking metric, and the notes."""
    console = console or Console()
    title = results.title or f"{results.dataset}, {results.protocol}"
    table = Table(title=title, pad_edge=False)
    table.add_column("method", overflow="fold")
    for metric in results.metrics:  # a narrow terminal breaks names; "100.00" stays whole
        table.add_column(metric, justify="right", overflow="fold", min_width=6)
    differences = {
        name: f"{values[results.best][0]:+.2f} to {values[results.best][1]:+.2f}"
        for name, values in results.intervals.items()
        if results.best in values
    }
    # one method against the others is a column; other pairs are lines below
    first = {name.partition(" - ")[0] for name in differences}
    intervals = (
        {name.partition(" - ")[2]: text for name, text in differences.items()}
        if len(first) == 1
        else {}
    )
    if intervals:
        table.add_column(f"{first.pop()} minus it, {results.best}", justify="right")
    if any(method.seconds is not None for method in results.methods):
        table.add_column("s/seed", justify="right")
    for method in results.methods:
        cells = [results.cell(method, metric) for metric in results.metrics]
        if intervals:
            cells.append(intervals.get(method.name, ""))
        if method.seconds is not None:
            cells.append(f"{method.seconds:.1f}")
        table.add_row(method.name, *cells, style=_STYLES.get(method.group))
    console.print(table)
    for name, text in ({} if intervals else differences).items():
        line = f"{name}: {text} ({results.best}, 95 % interval)"
        console.print(line, highlight=False, markup=False)
    for note in results.all_notes():
        console.print(f"· {note}", style="dim", highlight=False, markup=False)


def show(results: Results, as_json: bool) -> None:
    """Print a results table for a reader or for a program."""
    print_json(results) if as_json else print_results(results)

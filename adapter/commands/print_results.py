"""The results table on the terminal: as many columns as fit, and never a broken name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from ...pipeline import terminal
from ...pipeline.commands.options import print_json
from ..results import MethodResult, Results

_STYLES = {"ours": "bold green", "control": "yellow", "published": "dim"}
_LEAST = 6  # "100.00" stays whole; headings of figures may break


@dataclass(frozen=True)
class _Column:
    """One column of figures: what it says, and whether it is left out where it does not fit."""

    name: str
    cells: list[str]

    @property
    def width(self) -> int:
        """Columns of the terminal that it needs at least, with the space and line beside it."""
        return max(_LEAST, *[len(cell) for cell in self.cells]) + 3


def print_results(results: Results, console: Console | None = None) -> None:
    """Print methods by metrics, the intervals of the ranking metric, and the notes.

    Where a terminal is too narrow, seconds go first, then intervals, deviations of all but the
    metric that ranks, and its other columns. What is piped into a file or a program is plain text
    without lines, and whole unless COLUMNS says how wide it may be.
    """
    console = console or terminal.output()
    piped = not console.is_terminal
    columns, left_out = _fitting(results, console.width)
    table = terminal.table(console, pad_edge=False, header_style="bold")
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(
            column.name,
            justify="right",
            overflow="fold",
            min_width=max(_LEAST, *map(len, column.cells)),
        )
    for i, method in enumerate(results.methods):
        style = None if piped else _STYLES.get(method.group)
        table.add_row(method.name, *[column.cells[i] for column in columns], style=style)
    console.print(
        results.title or f"{results.dataset}, {results.protocol}",
        style=None if piped else "italic",
        highlight=False,
        markup=False,
    )
    console.print(table, crop=False, highlight=False)
    pairs = {} if _minuend(results) else _differences(results)
    for name, text in pairs.items():
        line = f"{name}: {text} ({results.best}, 95 % interval)"
        console.print(line, highlight=False, markup=False)
    notes = results.all_notes()
    if left_out:
        notes.append(f"not shown here for want of width: {', '.join(left_out)}")
    for note in notes:
        console.print(f"· {note}", style="dim", highlight=False, markup=False)


def _fitting(results: Results, width: int) -> tuple[list[_Column], list[str]]:
    """Return the columns to show, and what of the table is left out."""
    ranking = [results.best] if results.best in results.metrics else results.metrics[-1:]
    whole = _figures(results, results.metrics, results.cell)
    means = _figures(results, results.metrics, _mean)
    mixed = [w if w.name in ranking else m for w, m in zip(whole, means)]
    best, best_mean = (_figures(results, ranking, cell) for cell in (results.cell, _mean))
    intervals, seconds = _intervals(results), _seconds(results)
    name = max(len("method"), *[len(method.name) for method in results.methods]) + 2
    others = [metric for metric in results.metrics if metric not in ranking]
    said = {"seconds a seed": seconds, f"intervals of {results.best}": intervals}
    for columns, lost in [
        ([*whole, *intervals, *seconds], []),
        ([*whole, *intervals], ["seconds a seed"]),
        (whole, list(said)),
        (mixed, [*said, "other deviations"]),
        (means, [*said, "deviations"]),
        ([*best, *intervals], ["seconds a seed", *others]),
        (best, [*said, *others]),
    ]:
        if name + sum(column.width for column in columns) <= width:
            return columns, [text for text in lost if said.get(text, True)]
    return best_mean, [*[text for text in said if said[text]], *others, "deviations"]


def _figures(
    results: Results, metrics: Sequence[str], cell: Callable[[MethodResult, str], str]
) -> list[_Column]:
    return [_Column(name, [cell(method, name) for method in results.methods]) for name in metrics]


def _mean(method: MethodResult, metric: str) -> str:
    value = method.mean(metric)
    return "–" if value != value else f"{value:.2f}"


def _differences(results: Results) -> dict[str, str]:
    return {
        name: f"{values[results.best][0]:+.2f} to {values[results.best][1]:+.2f}"
        for name, values in results.intervals.items()
        if results.best in values
    }


def _minuend(results: Results) -> str:
    """Return the method that all pairs begin with: then they make a column, else lines below."""
    first = {name.partition(" - ")[0] for name in _differences(results)}
    return first.pop() if len(first) == 1 else ""


def _intervals(results: Results) -> list[_Column]:
    minuend = _minuend(results)
    if not minuend:
        return []
    by_name = {n.partition(" - ")[2]: text for n, text in _differences(results).items()}
    cells = [by_name.get(method.name, "") for method in results.methods]
    return [_Column(f"{minuend} minus it, {results.best}", cells)]


def _seconds(results: Results) -> list[_Column]:
    cells = ["" if m.seconds is None else f"{m.seconds:.1f}" for m in results.methods]
    return [_Column("s/seed", cells)] if any(cells) else []


def show(results: Results, as_json: bool) -> None:
    """Print a results table for a reader or for a program."""
    print_json(results) if as_json else print_results(results)

"""Two runs side by side on the terminal."""

from __future__ import annotations

from rich.markup import escape

from ...pipeline import terminal
from ..compare import ComparedMethod, Comparison


def print_comparison(found: Comparison, first: str, second: str) -> None:
    """Print one table: both means of the ranking metric, the difference and its interval."""
    console = terminal.output(highlight=False)
    title = f"{found.dataset}, {found.protocol}: {found.best}"
    table = terminal.table(console, title=escape(title), title_justify="left", pad_edge=False)
    table.add_column("method", overflow="fold")
    for name in (first, second, "difference", "95 % interval"):
        table.add_column(escape(name), justify="right", overflow="fold")
    for method in found.methods:
        table.add_row(escape(method.name), *_cells(method, found.best))
    console.print(table)
    others = [metric for metric in found.metrics if metric != found.best]
    for metric in others:
        told = [
            f"{method.name} {method.difference[metric]:+.2f}"
            for method in found.methods
            if metric in method.difference
        ]
        console.print(escape(f"{metric}, {second} minus {first}: " + "; ".join(told)))
    for note in found.notes:
        console.print(f"· {escape(note)}", style="dim")


def _cells(method: ComparedMethod, metric: str) -> list[str]:
    cells = [
        f"{side[metric][0]:.2f} ± {side[metric][1]:.2f}" if metric in side else "–"
        for side in (method.first, method.second)
    ]
    gap, interval = method.difference.get(metric), method.intervals.get(metric)
    cells.append("–" if gap is None else f"{gap:+.2f}")
    cells.append("–" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}")
    return cells

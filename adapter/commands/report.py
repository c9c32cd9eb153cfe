"""aape report and aape compare: one page for a run, and two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, print_json
from ...pipeline.terminal import echo

app = typer.Typer()


@app.command("report")
def report(
    run: Annotated[Path, typer.Argument(help="A run folder with results.")],
    root: Annotated[Path | None, typer.Option(help="Folder of the photos.")] = None,
    bank: Annotated[Path | None, typer.Option(help="The run's bank, where it moved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write report.html for a run folder: one file, with tables, figures and photos.

    Example: aape report runs/products
    """
    from ..report import report as write

    results = write(run, root=root, bank=bank)
    if as_json:
        print_json(results)
    else:
        echo(run / "report.html")


@app.command("compare")
def compare_verb(
    first: Annotated[Path, typer.Argument(help="A run folder with results.")],
    second: Annotated[Path, typer.Argument(help="Another, of the same data set and protocol.")],
    resamples: Annotated[int, typer.Option(min=0, help="Of the paired bootstrap; 0: none.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Put the tables of two runs side by side, with paired intervals of their differences.

    Example: aape compare runs/pets-4shot runs/pets-4shot-longer
    """
    from ..compare import compare

    found = compare(first, second, resamples=resamples)
    if as_json:
        print_json([table.as_dict() for table in found])
        return
    from .print_comparison import print_comparison

    for table in found:
        print_comparison(table, first.name, second.name)

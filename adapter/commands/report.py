"""aape report: one page for a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, print_json

app = typer.Typer()


@app.command("report")
def report(
    run: Annotated[Path, typer.Argument(help="A run folder with results.")],
    as_json: AsJson = False,
) -> None:
    """Write report.html for a run folder from the tables in it."""
    from ..report import report as write

    results = write(run)
    if as_json:
        print_json(results)
    else:
        typer.echo(run / "report.html")

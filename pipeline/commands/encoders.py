"""aape encoders: which dual encoders there are, and whether their weights are here."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import terminal
from .options import AsJson, print_json

app = typer.Typer()


@app.command("encoders")
def encoders_verb(
    everything: Annotated[bool, typer.Option("--all", help="All models of open_clip.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the encoders, whether their weights are on this machine, and their licence."""
    from rich.text import Text

    from ..encoders import verbs

    rows = verbs.encoders(everything)
    if as_json:
        print_json(rows)
        return
    out = terminal.output(highlight=False)
    table = terminal.table(out, box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)  # a name is for copying
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for row in rows:
        here = "here" if row.available else "not here"
        table.add_row(*(Text(cell) for cell in (row.name, here, row.licence, row.notes)))
    out.print(table)

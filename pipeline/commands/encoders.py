"""aape encoders: which dual encoders there are, and whether their weights are here."""

from __future__ import annotations

from typing import Annotated

import typer

from ..terminal import echo
from .options import AsJson, print_json

app = typer.Typer()


@app.command("encoders")
def encoders_verb(
    everything: Annotated[bool, typer.Option("--all", help="All models of open_clip.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the encoders, whether their weights are on this machine, and their licence."""
    from ..encoders import verbs

    rows = verbs.encoders(everything)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        here = "here" if row.available else "not here"
        echo(f"{row.name:<45} {here:<9} {row.licence:<26} {row.notes}".rstrip())

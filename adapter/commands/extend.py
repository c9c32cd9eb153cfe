"""aape extend: classes that arrive later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, Checkpoint, print_json
from ...pipeline.terminal import echo

app = typer.Typer()


@app.command("extend")
def extend_verb(
    run: Annotated[Path, typer.Argument(help="A run folder of aape train.")],
    bank: Annotated[str, typer.Option(help="Bank of the new classes.")] = "",
    features: Annotated[str, typer.Option(help="Or a file of their cached features.")] = "",
    shots: Annotated[
        int, typer.Option(min=0, help="Photos a new class; 0 has the texts alone.")
    ] = 16,
    seed: Annotated[int, typer.Option(help="Of the shots.")] = 1,
    root: Annotated[str, typer.Option(help="Folder of the images.")] = "",
    out: Annotated[str, typer.Option("--out", "-o", help="The new run; else RUN-extended.")] = "",
    checkpoint: Checkpoint = "",
    as_json: AsJson = False,
) -> None:
    """Add classes to a run, in closed form and without its old photos.

    Example: aape extend runs/products --bank new.bank.parquet --shots 4
    """
    from ..extend import extend

    found = extend(
        run, bank, features=features, shots=shots, seed=seed, root=root, out=out,
        checkpoint=checkpoint,
    )  # fmt: skip
    if as_json:
        print_json(found.as_dict())
    else:
        echo(f"{found.path}  {len(found.classes)} classes, {len(found.added)} of them new")

"""aape explain: why a photo was called what it was called, and what carries a class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, Checkpoint, print_json

app = typer.Typer()


@app.command("explain")
def explain_verb(
    run: Annotated[Path, typer.Argument(help="A run folder of aape train.")],
    photo: Annotated[
        str, typer.Argument(help="A photo, or a row of the run's feature file: test:0.")
    ] = "",
    class_name: Annotated[
        str, typer.Option("--class", help="A class instead, by its name or id.")
    ] = "",
    top: Annotated[int, typer.Option(min=1, help="Likeliest classes.")] = 3,
    bank: Annotated[Path | None, typer.Option(help="The run's bank, where it moved.")] = None,
    features: Annotated[
        Path | None, typer.Option(help="The run's feature file, where it moved.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the data set's photos.")] = None,
    checkpoint: Checkpoint = "",
    picture: Annotated[Path | None, typer.Option(help="Draw it: an .svg or .png file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what each term of the adapter added for a photo, and which sentences are near it.

    Example: aape explain runs/products inbox/1.jpg --picture why.svg

    A class: aape explain runs/products --class "bow tie"
    """
    from ..explain import explain
    from .print_explanation import print_explanation

    found = explain(
        run, photo or None, class_name=class_name, top=top, bank=bank, features=features,
        root=root, checkpoint=checkpoint, picture=picture,
    )  # fmt: skip
    if as_json:
        print_json(found.as_dict())
    else:
        print_explanation(found)

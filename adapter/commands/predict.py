"""aape predict: labels for new photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, Checkpoint, Strict, print_json

app = typer.Typer()


@app.command("predict")
def predict_verb(
    run: Annotated[Path, typer.Argument(help="A run folder of aape train.")],
    images: Annotated[
        list[Path], typer.Argument(help="Photos, folders of them, or quoted patterns.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Labels for each photo.")] = 3,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Choose among these alone; repeat it.")
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="A class without any photo, by name; repeat it.")
    ] = None,
    checkpoint: Checkpoint = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a CSV file.")] = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Label new photos with a trained adapter; classes it never saw are judged by their names.

    Example: aape predict runs/products inbox/ --also "bow tie" --out labels.csv

    The run: aape train --bank products.bank.parquet --protocol fewshot --out runs/products
    """
    from ...pipeline.files import write_text
    from ..predict import predict, to_csv

    found = predict(
        run,
        images,
        top=top,
        classes=classes or (),
        more=also or (),
        checkpoint=checkpoint,
        strict=strict,
    )
    if out:
        write_text(out, to_csv(found))
    if as_json:
        print_json([row.as_dict() for row in found])
    elif out:
        typer.echo(out)
    else:
        for row in found:
            typer.echo(row.line())

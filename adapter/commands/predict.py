"""aape predict: labels for new photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, Checkpoint, Strict, print_json
from ...pipeline.terminal import echo

app = typer.Typer()


@app.command("predict")
def predict_verb(
    run: Annotated[Path, typer.Argument(help="A run folder of aape train.")],
    images: Annotated[
        list[str], typer.Argument(help="Photos, folders of them, or quoted patterns.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Labels for each photo.")] = 3,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Choose among these alone, by name or id; repeat it."),
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="A class without any photo, by name; repeat it.")
    ] = None,
    checkpoint: Checkpoint = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda; else the run's.")] = "",
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Below it the label is 'none of these'.")
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write .csv, .json, .jsonl or .parquet.")
    ] = None,
    strict: Strict = False,
    describe: Annotated[
        bool, typer.Option("--describe", help="Have a language model describe those of --also.")
    ] = False,
    sort_into: Annotated[
        Path | None, typer.Option(help="Copy photos into folders here, one a label.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Label new photos with a trained adapter; classes it never saw are judged by their names.

    Example: aape predict runs/products inbox/ --also "bow tie" --out labels.csv

    The run: aape train --bank products.bank.parquet --protocol fewshot --out runs/products
    """
    from ..predict import predict

    found = predict(
        run,
        images,
        top,
        classes or (),
        also or (),
        checkpoint,
        device,
        min_confidence,
        out,
        strict,
        describe,
        sort_into,
    )
    if as_json:
        print_json(found)
    elif out:
        echo(out)
    else:
        echo("\n".join(row.line() for row in found))

"""aape export: a run for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, Checkpoint, print_json
from ...pipeline.errors import UserError
from ...pipeline.terminal import echo

app = typer.Typer()


@app.command("export")
def export_verb(
    run: Annotated[Path, typer.Argument(help="A run folder of aape train.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file or folder.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="Write this ONNX file.")] = None,
    format: Annotated[str, typer.Option(help="onnx, torch or folder.")] = "onnx",
    photo: Annotated[
        bool, typer.Option("--photo", help="Whole photos to logits, the encoder included.")
    ] = False,
    checkpoint: Checkpoint = "",
    as_json: AsJson = False,
) -> None:
    """Write the adapter for other programs, its terms folded in.

    Example: aape export runs/products --onnx products.onnx

    Example: aape export runs/products --format folder --out products-adapter
    """
    from ..export import export

    if onnx is not None and (out is not None or format != "onnx"):
        raise UserError("--onnx FILE stands alone.", "Or give --format and --out.")
    out = onnx or out
    if out is None:
        raise UserError("Where to?", "Give --onnx FILE, or --format and --out.")
    made = export(run, out, format=format, photo=photo, checkpoint=checkpoint)  # type: ignore[arg-type]
    if as_json:
        print_json({"format": format, "path": str(made)})
    else:
        echo(made)

"""aape serve: a run as a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import Checkpoint

app = typer.Typer()


@app.command("serve")
def serve_verb(
    run: Annotated[Path, typer.Argument(help="A run folder of aape train.")],
    host: Annotated[str, typer.Option(help="Any but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    token: Annotated[str, typer.Option(envvar="AAPE_TOKEN", help="Wanted of every request.")] = "",
    captions: Annotated[
        Path | None,
        typer.Option(help="A run trained on captions, for caption and ask; RUN itself if it is."),
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="A folder that may be searched.")] = None,
    bank: Annotated[Path | None, typer.Option(help="The run's bank, where it moved.")] = None,
    megabytes: Annotated[float, typer.Option(help="Most of a request.")] = 20,
    megapixels: Annotated[float, typer.Option(help="Most of a photo.")] = 50,
    seconds: Annotated[float, typer.Option(help="Most for an answer.")] = 30,
    per_minute: Annotated[int, typer.Option(min=1, help="Requests of one client.")] = 600,
    batch: Annotated[int, typer.Option(min=1, help="Photos through the encoder at once.")] = 16,
    checkpoint: Checkpoint = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda; else the run's.")] = "",
) -> None:
    """Serve a run: HTTP with OpenAPI (/openapi.json), and a page at /.

    Example: aape serve runs/products --photos inbox/

    Then: curl -F photo=@shirt.jpg -F also="bow tie" http://127.0.0.1:8000/predict
    """
    from ..serve import serve
    from ..serve.limits import Limits

    limits = Limits.parse(
        {
            "megabytes": megabytes,
            "megapixels": megapixels,
            "seconds": seconds,
            "per_minute": per_minute,
            "batch": batch,
        },
        "What was set",
    )
    serve(
        run, host=host, port=port, token=token, captions=captions, photos=photos, bank=bank,
        limits=limits, checkpoint=checkpoint, device=device,
    )  # fmt: skip

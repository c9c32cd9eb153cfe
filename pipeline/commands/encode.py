"""aape encode: fill the caches with all that a data set needs, by many processes or nodes."""

from __future__ import annotations

from typing import Annotated

import typer

from ..terminal import echo
from .datasets import DatasetName, DatasetRoot
from .options import AsJson, Config, Settings, Strict, print_json

app = typer.Typer()


@app.command("encode")
def encode_verb(
    dataset: DatasetName,
    root: DatasetRoot = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Features before pooling, too, as captions need.")
    ] = False,
    encoder: Annotated[
        str, typer.Option(help="lite, MODEL/TAG of open_clip, or a folder.", show_default="auto")
    ] = "",
    checkpoint: Annotated[str, typer.Option(help="Local weights of the encoder.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …", show_default="auto")] = "",
    config: Config = None,
    settings: Settings = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Encode all images and texts of a data set, so that what comes after finds them.

    On many GPUs: torchrun --nproc-per-node 8 -m aape encode imagenet

    On a Ray cluster: aape encode imagenet --set encoder.ray.actors=8 --set encoder.ray.gpus=1
    """
    from ..embed import verbs

    found = verbs.encode(
        dataset, root or "", tokens, encoder, checkpoint, device, config, settings or (), strict
    )
    print_json(found) if as_json else echo(found.line())

"""aape sweep: many data sets, seeds, shots and recipes in parallel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import (
    AsJson,
    Config,
    Settings,
    print_json,
    whole_numbers,
    words_of,
)
from .train import Baselines, Device, Protocol, Seeds

app = typer.Typer()


@app.command("sweep")
def sweep(
    sources: Annotated[list[str], typer.Argument(help="Banks and feature files.")],
    shots: Annotated[
        str,
        typer.Option(
            help="Training images a class, or all; several make learning curves.", show_default="16"
        ),
    ] = "",
    seeds: Seeds = "",
    recipes: Annotated[
        str, typer.Option(help="Names or YAML files, comma-separated.", show_default="default")
    ] = "",
    protocol: Protocol = "",
    baselines: Baselines = "",
    control: Annotated[str, typer.Option(help="As for aape train.")] = "",
    repeat_images: Annotated[
        bool, typer.Option("--repeat-images", help="Fill up classes with too few images.")
    ] = False,
    processes: Annotated[int, typer.Option(min=0, help="At once; 0 is one a processor.")] = 0,
    ray: Annotated[
        str | None,
        typer.Option(help="Run on a Ray cluster: host:port, auto, or local to start one."),
    ] = None,
    device: Device = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of all runs.")] = Path(
        "runs/sweep"
    ),
    config: Config = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Train on many data sets and seeds in parallel; a finished training is never repeated.

    Example: aape sweep cars.bank.parquet pets.bank.parquet --recipes default,literal

    Learning curves: aape sweep cars.bank.parquet --protocol fewshot --shots 1,2,4,8,16
    """
    from ..classification import verbs
    from ..shots import read_shots
    from .print_results import print_results

    tables = verbs.sweep(
        sources, [some for word in words_of(shots) if (some := read_shots(word)) is not None],
        whole_numbers(seeds, "--seeds"), words_of(recipes), protocol, words_of(baselines),
        words_of(control), repeat_images, processes, ray, device, out, config, settings or (),
    )  # fmt: skip
    if as_json:
        print_json(tables)
        return
    for table in tables:
        if len(sources) > 1 or not table.dataset.startswith("average of"):
            print_results(table)

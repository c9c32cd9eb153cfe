"""aape sweep: many data sets, seeds, shots and recipes in parallel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, print_json, whole_numbers, words_of
from .train import Baselines, Seeds

app = typer.Typer()


@app.command("sweep")
def sweep_verb(
    sources: Annotated[list[str], typer.Argument(help="Banks and feature files.")],
    shots: Annotated[
        str, typer.Option(help="Training images a class; several make learning curves.")
    ] = "16",
    seeds: Seeds = "1,2,3",
    recipes: Annotated[str, typer.Option(help="Names or YAML files, comma-separated.")] = "default",
    protocol: Annotated[str, typer.Option(help="As for aape train.")] = "base2new",
    baselines: Baselines = "all",
    control: Annotated[str, typer.Option(help="As for aape train.")] = "",
    repeat_images: Annotated[
        bool, typer.Option("--repeat-images", help="Fill up classes with too few images.")
    ] = False,
    processes: Annotated[int, typer.Option(min=0, help="At once; 0 is one a processor.")] = 0,
    ray: Annotated[
        str | None,
        typer.Option(help="Run on a Ray cluster: host:port, auto, or local to start one."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of all runs.")] = Path(
        "runs/sweep"
    ),
    as_json: AsJson = False,
) -> None:
    """Train on many data sets and seeds in parallel; a finished training is never repeated.

    Example: aape sweep cars.bank.parquet pets.bank.parquet --recipes default,literal

    Learning curves: aape sweep cars.bank.parquet --protocol fewshot --shots 1,2,4,8,16
    """
    from dataclasses import asdict

    from ..config import Config
    from ..method.recipe import load_recipe
    from ..sweep import sweep
    from .print_results import print_results

    evaluation = {
        "protocol": protocol, "seeds": whole_numbers(seeds, "--seeds"),
        "controls": words_of(control), "baselines": words_of(baselines),
    }  # fmt: skip
    configs = [
        Config.parse(
            {
                "data": {
                    "features" if s.endswith(".safetensors") else "bank": s,
                    "repeat_images": repeat_images,
                },
                "encoder": {"device": device},
                "recipe": load_recipe(recipe).model_dump(),
                "evaluation": evaluation | {"shots": number},
            },
            "The command line",
        )
        for recipe in words_of(recipes)
        for number in whole_numbers(shots, "--shots")
        for s in sources
    ]
    address = "" if ray == "local" else ray
    tables, averages = sweep(configs, out, processes, address)
    if as_json:
        print_json([asdict(table) for table in [*tables, *averages]])
        return
    for table in [*tables, *(averages if len(sources) > 1 else [])]:
        print_results(table)

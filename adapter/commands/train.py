"""aape train: adapters for classification and for captions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...pipeline.commands.options import AsJson, whole_numbers, words_of

app = typer.Typer()
Baselines = Annotated[
    str,
    typer.Option(
        help="Comma-separated names, or all, fast (no training), slow (CoOp, CoCoOp), none."
    ),
]
Seeds = Annotated[str, typer.Option(help="Of the shots, comma-separated; 0 is a seed.")]


@app.command("train")
def train(
    bank: Annotated[str, typer.Option(help="Prompt bank; it knows data set and encoder.")] = "",
    features: Annotated[str, typer.Option(help="Cached features (safetensors).")] = "",
    task: Annotated[str, typer.Option(help="classification, or captions (no bank).")] = (
        "classification"
    ),
    shots: Annotated[int, typer.Option(min=0, help="Training images a class.")] = 16,
    seeds: Seeds = "1,2,3",
    protocol: Annotated[
        str,
        typer.Option(help="fewshot, base2new, generalized, cross-dataset, domain, incremental."),
    ] = "base2new",
    recipe: Annotated[
        str, typer.Option(help="default, staged, literal, or a YAML file.")
    ] = "default",
    distillation: Annotated[
        float | None, typer.Option("--lambda", min=0, help="Weight of the distillation.")
    ] = None,
    control: Annotated[
        str,
        typer.Option(
            help="Rows with one thing changed, comma-separated: language (shuffled, template, "
            "waffle, no-distillation), parts (no-class-text, no-shared-map, …), "
            "aggregators (random-prompt, mean-prompt, mlp-prompt), or their single names."
        ),
    ] = "",
    baselines: Baselines = "all",
    target: Annotated[
        list[str] | None, typer.Option(help="Banks or feature files that are only tested on.")
    ] = None,
    new_classes: Annotated[
        str, typer.Option(help="bank (what it says of them), or name (the template alone).")
    ] = "bank",
    new_class_prompts: Annotated[
        bool, typer.Option("--new-class-prompts", hidden=True, help="Now --new-classes bank.")
    ] = False,
    unlabelled: Annotated[
        str, typer.Option(help="Photos without labels: a folder, features, or train.")
    ] = "",
    semi: Annotated[bool, typer.Option("--semi", help="Shots and --unlabelled together.")] = False,
    repeat_images: Annotated[
        bool, typer.Option("--repeat-images", help="Fill up classes with too few images.")
    ] = False,
    init_seed: Annotated[int | None, typer.Option(help="Of weights; else the shots'.")] = None,
    order_seed: Annotated[int | None, typer.Option(help="Of batches; else the shots'.")] = None,
    dataset: Annotated[str, typer.Option(help="One data set of a bank of several.")] = "",
    root: Annotated[str, typer.Option(help="Folder of the images.")] = "",
    encoder: Annotated[str, typer.Option(help="The bank's by default.")] = "auto",
    checkpoint: Annotated[str, typer.Option(help="Local weights of the encoder.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train the adapter and print it beside every baseline on the same features and shots.

    Example: aape train --bank cars.bank.parquet --shots 16 --seeds 1,2,3

    With captions: aape train --task captions --dataset coco; then aape eval retrieval RUN.
    """
    if task != "classification":
        place = {"name": encoder, "checkpoint": checkpoint, "device": device}
        asked = {"dataset": dataset, "root": root, "encoder": place, "distillation": distillation}
        _show(train_on_captions(task, asked, whole_numbers(seeds, "--seeds"), out), as_json)
        return
    from ..classification.run import default_folder, run_classification
    from ..config import Config
    from ..method.recipe import load_recipe

    values = load_recipe(recipe).model_dump()
    if distillation is not None:
        values["distillation"] = distillation
    evaluation = {
        "protocol": protocol, "shots": shots, "seeds": whole_numbers(seeds, "--seeds"),
        "init_seed": init_seed, "order_seed": order_seed, "controls": words_of(control),
        "baselines": words_of(baselines), "new_classes": new_classes,
        "new_class_prompts": new_class_prompts,
    }  # fmt: skip
    data = {
        "bank": bank, "dataset": dataset, "root": root, "features": features,
        "targets": target or [], "repeat_images": repeat_images,
        "unlabelled": unlabelled, "semi": semi,
    }  # fmt: skip
    place = {"name": encoder, "checkpoint": checkpoint, "device": device}
    config = Config.parse(
        {"data": data, "encoder": place, "recipe": values, "evaluation": evaluation},
        "The command line",
    )
    _show(run_classification(config, out or default_folder(config)), as_json)


def train_on_captions(task: str, asked: dict[str, Any], seeds: list[int], out: Path | None) -> Any:
    """Train on captions for the verb ``train``."""
    from ...pipeline.errors import UserError, unknown_name
    from ..captions.run import CaptionRunConfig, run_captions

    if task != "captions":
        raise unknown_name("task of train", task, ["classification", "captions"])
    if not asked["dataset"]:
        raise UserError("Training on captions needs a data set.", "Name one: --dataset shapes.")
    weight = asked.pop("distillation")
    captions = {} if weight is None else {"distillation": weight}
    values = {**asked, "captions": captions, "seeds": seeds}
    return run_captions(CaptionRunConfig.parse(values, "The command line"), out)


def _show(results: Any, as_json: bool) -> None:
    """Print a results table for a reader or for a program."""
    from .print_results import show as show_results

    show_results(results, as_json)

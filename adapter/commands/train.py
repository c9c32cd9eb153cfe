"""aape train and train-captions: adapters for classification and for captions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, Config, Settings, Strict, whole_numbers, words_of
from ...pipeline.terminal import echo

app = typer.Typer()
Baselines = Annotated[
    str,
    typer.Option(
        help="Comma-separated ids (gda, proker, tip-adapter-f …; docs/baselines.md lists them), or"
        " all, fast (no training), slow (CoOp, CoCoOp), none.",
        show_default="all",
    ),
]
Seeds = Annotated[
    str, typer.Option(help="Of the shots, comma-separated; 0 is a seed.", show_default="1,2,3")
]
Distillation = Annotated[
    float | None, typer.Option("--lambda", min=0, help="Weight of the distillation.")
]
Protocol = Annotated[
    str,
    typer.Option(
        help="fewshot, base2new, generalized, cross-dataset, domain, incremental.",
        show_default="base2new",
    ),
]
Root = Annotated[str, typer.Option(help="Folder of the images.")]
Checkpoint = Annotated[str, typer.Option(help="Local weights of the encoder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.", show_default="auto")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run folder.")]


@app.command("train")
def train(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="Photos: a folder, a table, or a data set's name.")
    ] = "",
    bank: Annotated[str, typer.Option(help="Prompt bank; it knows data set and encoder.")] = "",
    features: Annotated[str, typer.Option(help="Cached features (safetensors).")] = "",
    task: Annotated[
        str, typer.Option(help="captions: the old name of aape train-captions.", hidden=True)
    ] = "classification",
    shots: Annotated[
        str, typer.Option(help="Training images a class, or all: every one.", show_default="16")
    ] = "",
    seeds: Seeds = "",
    protocol: Protocol = "",
    recipe: Annotated[
        str,
        typer.Option(
            help="default, staged, literal, paper, or a YAML file.", show_default="default"
        ),
    ] = "",
    distillation: Distillation = None,
    control: Annotated[
        str,
        typer.Option(
            help="Rows with one thing changed, comma-separated: language (shuffled, template, "
            "waffle, no-distillation), parts (no-class-text, no-shared-map, …), "
            "aggregators (random-prompt, mean-prompt, mlp-prompt), or their single names."
        ),
    ] = "",
    baselines: Baselines = "",
    target: Annotated[
        list[str] | None, typer.Option(help="Banks or feature files that are only tested on.")
    ] = None,
    new_classes: Annotated[
        str,
        typer.Option(
            help="bank (what it says of them), or name (the template alone).", show_default="bank"
        ),
    ] = "",
    new_class_prompts: Annotated[
        bool, typer.Option("--new-class-prompts", hidden=True, help="Now --new-classes bank.")
    ] = False,
    names: Annotated[
        str,
        typer.Option(
            help="given, or best: of the other names in the bank, those that training photos fit.",
            show_default="given",
        ),
    ] = "",
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
    root: Root = "",
    encoder: Annotated[str, typer.Option(help="The bank's by default.", show_default="auto")] = "",
    checkpoint: Checkpoint = "",
    device: Device = "",
    out: Out = None,
    config: Config = None,
    settings: Settings = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Train the adapter and print it beside every baseline on the same features and shots.

    Your own photos, a folder a class, all of them: aape train photos/

    With a bank: aape train --bank cars.bank.parquet --shots 16 --seeds 1,2,3

    The same again, one thing changed: aape train --config RUN/config.yaml --set evaluation.shots=4

    With captions: aape train-captions --dataset coco; then aape eval retrieval RUN.
    """
    from .print_results import show

    if task != "classification":
        refuse_others(context, task)
        train_captions(
            dataset, root, seeds, distillation, encoder, checkpoint, device, out, config, settings,
            strict, as_json,
        )  # fmt: skip
        return
    from ..classification import verbs
    from ..shots import read_shots

    results = verbs.train(
        source, bank, features, read_shots(shots), whole_numbers(seeds, "--seeds"), protocol,
        recipe, distillation, words_of(control), words_of(baselines), target or (), new_classes,
        repeat_images, init_seed, order_seed, dataset, root, encoder, checkpoint, device, out,
        config, settings or (), strict, unlabelled, semi, names,
    )  # fmt: skip
    show(results, as_json)
    if not as_json:
        echo("\n".join(["", *results.details.get("summary", [])]).rstrip())


@app.command("train-captions")
def train_captions(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="With captions.")] = "",
    root: Root = "",
    seeds: Seeds = "",
    distillation: Distillation = None,
    encoder: Annotated[str, typer.Option(help="Dual encoder.", show_default="auto")] = "",
    checkpoint: Checkpoint = "",
    device: Device = "",
    out: Out = None,
    config: Config = None,
    settings: Settings = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Train on captioned images: one generator for retrieval, captioning and answering.

    Example: aape train-captions --dataset coco --out runs/coco; then aape eval retrieval runs/coco.
    """
    from ..captions import verbs
    from .print_results import show

    results = verbs.train_captions(
        dataset, root, whole_numbers(seeds, "--seeds"), distillation, encoder, checkpoint, device,
        out, config, settings or (), strict,
    )  # fmt: skip
    show(results, as_json)


_OF_CAPTIONS = {
    "task", "dataset", "root", "seeds", "distillation", "encoder", "checkpoint", "device", "out",
    "config", "settings", "strict", "as_json",
}  # fmt: skip


def refuse_others(context: typer.Context, task: str) -> None:
    """Stop at options that training on captions would not read; say what the verb is called now.

    Raises:
        UserError: the task is unknown, or an option does not belong to it.
    """
    from ...pipeline.errors import UserError, unknown_name
    from ...pipeline.progress import step

    if task != "captions":
        raise unknown_name("task of train", task, ["classification", "captions"])
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name not in _OF_CAPTIONS
        and getattr(context.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise UserError(
            f"Training on captions does not read {', '.join(given)}.",
            "See: aape train-captions --help.",
        )
    step("aape train --task captions is now aape train-captions; this version knows both.")

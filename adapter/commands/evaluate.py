"""aape eval: the four tasks on a run, or a whole suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...pipeline.commands.options import AsJson, Checkpoint, Strict, whole_numbers, words_of
from .suites import run_named

eval_app = typer.Typer(no_args_is_help=True, help="Evaluate one of the four tasks, or all.")
CaptionRun = Annotated[Path, typer.Argument(help="A run folder of aape train --task captions.")]
OtherData = Annotated[str, typer.Option("--dataset", help="Test data, if not the run's own.")]
OtherRoot = Annotated[str, typer.Option("--root", help="Its folder.")]
LanguageModel = Annotated[
    str, typer.Option("--language-model", help="smollm2, a folder, or a model of the hub.")
]
Steps = Annotated[int | None, typer.Option(min=0, help="Training steps of the prefix.")]
Grid = Annotated[int | None, typer.Option(min=1, help="Image tokens: grid x grid.")]
AapeTokens = Annotated[
    int | None, typer.Option(min=1, help="Slots that the AAPE fills; the paper has one.")
]
Strategy = Annotated[str, typer.Option(help="greedy, beam or sample.")]


@eval_app.command("classification")
def eval_classification(
    run: Annotated[Path, typer.Argument(help="A run folder of aape train.")],
    protocol: Annotated[str, typer.Option(help="Another protocol than the run's.")] = "",
    baselines: Annotated[str, typer.Option(help="Other baselines than the run's.")] = "",
    control: Annotated[str, typer.Option(help="Controls to add, comma-separated.")] = "",
    target: Annotated[list[str] | None, typer.Option(help="As for aape train.")] = None,
    checkpoint: Checkpoint = "",
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run again, or by another protocol; what is finished is reused."""
    from ..classification.run import run_classification
    from ..config import Config
    from ..run import RunFolder, own_weights

    folder = RunFolder.open(run)
    values = Config.from_yaml(folder.path / "config.yaml").model_dump()
    changes = {
        "protocol": protocol,
        "baselines": words_of(baselines),
        "controls": words_of(control),
    }
    place = values["encoder"]
    place["checkpoint"] = own_weights(place["name"], place["checkpoint"], checkpoint)
    place["strict"] = strict or place["strict"]
    values["evaluation"] |= {name: value for name, value in changes.items() if value}
    values["data"]["targets"] = target or values["data"]["targets"]
    _show(run_classification(Config.parse(values, "The command line"), folder.path), as_json)


def prefix_settings(
    language_model: str, steps: int | None, grid: int | None, slots: int | None, **more: Any
) -> dict[str, Any]:
    """Collect the settings that were given."""
    own = {"language_model": language_model, "steps": steps, "grid": grid, "aape_tokens": slots}
    given = {**own, **more}
    return {name: value for name, value in given.items() if value is not None}


@eval_app.command("retrieval")
def eval_retrieval(
    run: CaptionRun,
    dataset: OtherData = "",
    root: OtherRoot = "",
    max_images: Annotated[int, typer.Option(min=0, help="Test images; 0 is all.")] = 0,
    contrasts: Annotated[
        bool, typer.Option("--contrasts", help="Caption against hard negative (SugarCrepe).")
    ] = False,
    checkpoint: Checkpoint = "",
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Image-text retrieval with x, h(x) and their mixture, both directions."""
    from ..captions.run import evaluate_run

    task = "contrasts" if contrasts else "retrieval"
    _show(
        evaluate_run(
            run,
            task,
            dataset=dataset,
            root=root,
            limit=max_images,
            checkpoint=checkpoint,
            strict=strict,
        ),
        as_json,
    )


@eval_app.command("captioning")
def eval_captioning(
    run: CaptionRun,
    dataset: OtherData = "",
    root: OtherRoot = "",
    language_model: LanguageModel = "smollm2",
    steps: Steps = None,
    grid: Grid = None,
    aape_tokens: AapeTokens = None,
    strategy: Strategy = "greedy",
    beams: Annotated[int, typer.Option(min=1)] = 4,
    max_tokens: Annotated[int, typer.Option(min=1)] = 24,
    java: Annotated[bool, typer.Option("--java", help="METEOR and SPICE too.")] = False,
    max_images: Annotated[int, typer.Option(min=0, help="Test images; 0 is all.")] = 0,
    checkpoint: Checkpoint = "",
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Captions by a frozen language model: no image, image tokens, AAPE, both."""
    from ..captions.run import evaluate_run

    decode = {"strategy": strategy, "beams": beams, "max_tokens": max_tokens}
    settings = {
        **prefix_settings(language_model, steps, grid, aape_tokens),
        "decode": decode,
        "java": java,
    }
    _show(
        evaluate_run(
            run,
            "captioning",
            dataset=dataset,
            root=root,
            settings=settings,
            limit=max_images,
            checkpoint=checkpoint,
            strict=strict,
        ),
        as_json,
    )


@eval_app.command("vqa")
def eval_vqa(
    run: CaptionRun,
    dataset: OtherData = "",
    root: OtherRoot = "",
    language_model: LanguageModel = "smollm2",
    steps: Steps = None,
    grid: Grid = None,
    aape_tokens: AapeTokens = None,
    shots: Annotated[str, typer.Option(help="Answered questions shown, comma-separated.")] = "0",
    train_on: Annotated[str, typer.Option(help="questions, or captions (zero-shot).")] = (
        "questions"
    ),
    caption_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps on captions before those on questions.")
    ] = None,
    wordnet: Annotated[str, typer.Option(help="Folder of WordNet's files, for WUPS.")] = "",
    max_questions: Annotated[int, typer.Option(min=0, help="Test questions; 0 is all.")] = 0,
    checkpoint: Checkpoint = "",
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Answers by a frozen language model, beside the most frequent answer per type."""
    from ..captions.run import evaluate_run

    settings = {
        **prefix_settings(
            language_model, steps, grid, aape_tokens, caption_steps=caption_steps
        ),
        "shots": whole_numbers(shots, "--shots"), "train_on": train_on, "wordnet": wordnet,
    }  # fmt: skip
    _show(
        evaluate_run(
            run,
            "vqa",
            dataset=dataset,
            root=root,
            settings=settings,
            limit=max_questions,
            checkpoint=checkpoint,
            strict=strict,
        ),
        as_json,
    )


@eval_app.command("all")
def eval_all(
    name: Annotated[
        str, typer.Option("--suite", help="A suite's name (aape suites) or a YAML file.")
    ] = "embedded",
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the results go.")] = Path("runs"),
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out data sets that are not here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a suite: banks, all tasks on all its data sets, one report."""
    run_named(name, out, skip_missing, as_json)


def _show(results: Any, as_json: bool) -> None:
    """Print a results table for a reader or for a program."""
    from .print_results import show as show_results

    show_results(results, as_json)

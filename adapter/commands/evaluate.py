"""aape eval: the four tasks on a run, or a whole suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import (
    AsJson,
    Checkpoint,
    Config,
    Settings,
    Strict,
    whole_numbers,
    words_of,
)

eval_app = typer.Typer(no_args_is_help=True, help="Evaluate one of the four tasks, or all.")
CaptionRun = Annotated[Path, typer.Argument(help="A run folder of aape train-captions.")]
OtherData = Annotated[str, typer.Option("--dataset", help="Test data, if not the run's own.")]
OtherRoot = Annotated[str, typer.Option("--root", help="Its folder.")]
LanguageModel = Annotated[
    str,
    typer.Option(
        "--language-model",
        help="smollm2, a folder, or a model of the hub.",
        show_default="smollm2",
    ),
]
Steps = Annotated[int | None, typer.Option(min=0, help="Training steps of the prefix.")]
Grid = Annotated[int | None, typer.Option(min=1, help="Image tokens: grid x grid.")]
AapeTokens = Annotated[
    int | None, typer.Option(min=1, help="Slots that the AAPE fills; the paper has one.")
]
Strategy = Annotated[str, typer.Option(help="greedy, beam or sample.", show_default="greedy")]


@eval_app.command("classification")
def eval_classification(
    run: Annotated[Path, typer.Argument(help="A run folder of aape train.")],
    protocol: Annotated[str, typer.Option(help="Another protocol than the run's.")] = "",
    baselines: Annotated[str, typer.Option(help="Other baselines than the run's.")] = "",
    control: Annotated[str, typer.Option(help="Controls to add, comma-separated.")] = "",
    target: Annotated[list[str] | None, typer.Option(help="As for aape train.")] = None,
    checkpoint: Checkpoint = "",
    config: Config = None,
    settings: Settings = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run again, or by another protocol; what is finished is reused."""
    from ..classification import verbs
    from .print_results import show

    results = verbs.eval_classification(
        run, protocol, words_of(baselines), words_of(control), target or (), checkpoint, config,
        settings or (), strict,
    )  # fmt: skip
    show(results, as_json)


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
    from ..captions import verbs
    from .print_results import show

    results = verbs.eval_retrieval(run, dataset, root, max_images, contrasts, checkpoint, strict)
    show(results, as_json)


@eval_app.command("captioning")
def eval_captioning(
    run: CaptionRun,
    dataset: OtherData = "",
    root: OtherRoot = "",
    language_model: LanguageModel = "",
    steps: Steps = None,
    grid: Grid = None,
    aape_tokens: AapeTokens = None,
    strategy: Strategy = "",
    beams: Annotated[int | None, typer.Option(min=1, show_default="4")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, show_default="24")] = None,
    java: Annotated[bool, typer.Option("--java", help="METEOR and SPICE too.")] = False,
    max_images: Annotated[int, typer.Option(min=0, help="Test images; 0 is all.")] = 0,
    checkpoint: Checkpoint = "",
    config: Config = None,
    settings: Settings = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Captions by a frozen language model: no image, image tokens, AAPE, both."""
    from ..captions import verbs
    from .print_results import show

    results = verbs.eval_captioning(
        run, dataset, root, language_model, steps, grid, aape_tokens, strategy, beams, max_tokens,
        java, max_images, checkpoint, config, settings or (), strict,
    )  # fmt: skip
    show(results, as_json)


@eval_app.command("vqa")
def eval_vqa(
    run: CaptionRun,
    dataset: OtherData = "",
    root: OtherRoot = "",
    language_model: LanguageModel = "",
    steps: Steps = None,
    grid: Grid = None,
    aape_tokens: AapeTokens = None,
    shots: Annotated[
        str, typer.Option(help="Answered questions shown, comma-separated.", show_default="0")
    ] = "",
    train_on: Annotated[
        str, typer.Option(help="questions, or captions (zero-shot).", show_default="questions")
    ] = "",
    caption_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps on captions before those on questions.")
    ] = None,
    wordnet: Annotated[str, typer.Option(help="Folder of WordNet's files, for WUPS.")] = "",
    max_questions: Annotated[int, typer.Option(min=0, help="Test questions; 0 is all.")] = 0,
    checkpoint: Checkpoint = "",
    config: Config = None,
    settings: Settings = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Answers by a frozen language model, beside the most frequent answer per type."""
    from ..captions import verbs
    from .print_results import show

    results = verbs.eval_vqa(
        run, dataset, root, language_model, steps, grid, aape_tokens,
        whole_numbers(shots, "--shots"), train_on, caption_steps, wordnet, max_questions,
        checkpoint, config, settings or (), strict,
    )  # fmt: skip
    show(results, as_json)


@eval_app.command("all")
def eval_all(
    suite: Annotated[
        str,
        typer.Option("--suite", "--config", help="A suite's name (aape suites) or a YAML file."),
    ] = "embedded",
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the results go.")] = Path("runs"),
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out data sets that are not here.")
    ] = False,
    settings: Settings = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what is missing and where to get it; do nothing."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a suite: banks, all tasks on all its data sets, one report.

    With --dry-run the exit status is 1 if anything is missing.
    """
    from .suites import run_and_show, show_needs

    if dry_run:
        show_needs(suite, settings or (), as_json)
        return
    run_and_show(suite, out, skip_missing, settings or (), as_json)

"""aape caption and aape ask: what a language model says of new photos."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...pipeline.commands.options import Checkpoint
from ...pipeline.errors import UserError
from ...pipeline.terminal import echo, json_text

if TYPE_CHECKING:
    from ..captions.describe import PhotoText

app = typer.Typer()
CaptionRun = Annotated[Path, typer.Argument(help="A run trained on captions.")]
Train = Annotated[
    bool, typer.Option("--train", help="Train the prefixes now, if the run has none.")
]
OfDataset = Annotated[
    str, typer.Option("--dataset", help="The evaluation whose prefix is used, if not the run's.")
]
LanguageModel = Annotated[
    str, typer.Option("--language-model", help="Where it lies, if the run used a local one.")
]
AsJsonLines = Annotated[
    bool, typer.Option("--json", help="Print JSON lines for other programs, as they finish.")
]


@app.command("caption")
def caption_verb(
    run: CaptionRun,
    photos: Annotated[list[str], typer.Argument(help="Photos, or folders of them.")],
    train: Train = False,
    dataset: OfDataset = "",
    strategy: Annotated[str, typer.Option(help="greedy, beam or sample.")] = "greedy",
    beams: Annotated[int, typer.Option(min=1)] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a caption.")] = 24,
    language_model: LanguageModel = "",
    checkpoint: Checkpoint = "",
    as_json: AsJsonLines = False,
) -> None:
    """Caption new photos, one line each as it is finished.

    Example: aape caption runs/mine inbox/ --json

    The run: aape train-captions --dataset mine --out runs/mine, then
    aape eval captioning runs/mine
    """
    from ..captions.describe import caption

    found = caption(
        run, photos, train=train, dataset=dataset, strategy=strategy, beams=beams,
        max_tokens=max_tokens, language_model=language_model, checkpoint=checkpoint,
    )  # fmt: skip
    _print(found, as_json)


@app.command("ask")
def ask_verb(
    run: CaptionRun,
    words: Annotated[list[str], typer.Argument(metavar="PHOTOS... QUESTION", show_default=False)],
    train: Train = False,
    dataset: OfDataset = "",
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 8,
    language_model: LanguageModel = "",
    checkpoint: Checkpoint = "",
    as_json: AsJsonLines = False,
) -> None:
    """Answer a question about new photos, one line each as it is finished.

    Example: aape ask runs/shapes photo.png "what colour is it?"

    The run: aape train-captions --dataset shapes --out runs/shapes, then
    aape eval vqa runs/shapes
    """
    from ..captions.describe import ask

    if len(words) < 2:
        raise UserError(
            "A photo and a question are both needed.",
            'Write: aape ask RUN PHOTO "what colour is it?"',
        )
    found = ask(
        run, words[:-1], words[-1], train=train, dataset=dataset, max_tokens=max_tokens,
        language_model=language_model, checkpoint=checkpoint,
    )  # fmt: skip
    _print(found, as_json)


def _print(found: Iterable[PhotoText], as_json: bool) -> None:
    """Print one line a photo, at once. What cannot be read is named on standard error.

    Raises:
        UserError: no photo could be read.
    """
    said = 0
    for row in found:
        said += not row.error
        if as_json:
            echo(json_text(row.as_dict()))
        elif not row.error:
            echo(f"{row.path}  {row.text}{'' if row.ended else ' …'}")
        if row.error:
            echo(f"{row.path} cannot be read and is left out: {row.error}", err=True)
    if not said:
        raise UserError("None of the photos can be read.")

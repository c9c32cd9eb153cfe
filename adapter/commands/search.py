"""aape search: photos by a sentence, or by another photo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...pipeline.commands.options import AsJson, Checkpoint, print_json
from ...pipeline.errors import UserError
from ...pipeline.paths import is_file, is_there
from ...pipeline.progress import step
from ...pipeline.terminal import echo, json_text

if TYPE_CHECKING:
    from ..captions.search import Hit, PhotoSearch

app = typer.Typer()


@app.command("search")
def search_verb(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] PHOTOS... TEXT",
            help="A run trained on captions, if any; photos or folders; what to look for, or - for "
            "one sentence a line from standard input.",
            show_default=False,
        ),
    ],
    like: Annotated[Path | None, typer.Option(help="Look for photos like this one.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many photos.")] = 10,
    encoder: Annotated[str, typer.Option(help="Without a run: the encoder (aape encoders).")] = "",
    checkpoint: Checkpoint = "",
    as_json: AsJson = False,
) -> None:
    """Find photos by a sentence, or by another photo; the index is kept and updated.

    Example: aape search runs/mine photos/ "two dogs on a beach" -k 5

    Example: aape search --encoder lite photos/ --like dog.jpg

    Example: aape search photos/ - < sentences.txt
    """
    from ..captions.search import PhotoSearch, search

    run, photos, text = parted(words, encoder, like is not None)
    if text == "-":
        opened = PhotoSearch(photos, run=run, encoder=encoder or "auto", checkpoint=checkpoint)
        answer_lines(opened, k, as_json)
        return
    found = search(
        photos,
        text,
        like=like,
        k=k,
        run=run,
        encoder=encoder,
        checkpoint=checkpoint,
    )
    if as_json:
        print_json([hit.as_dict() for hit in found])
    else:
        print_hits(found)


def print_hits(found: list[Hit]) -> None:
    """Print a line a photo."""
    for hit in found:
        echo(f"{hit.cosine:.3f}  {hit.path}")


def answer_lines(opened: PhotoSearch, k: int, as_json: bool) -> None:
    """Print the hits of each line of standard input as it comes, below the line or as JSON."""
    step(opened.says)
    step(str(opened.by_text.update))
    for line in sys.stdin:
        if not (text := line.strip()):
            continue
        found = opened.text(text, k)
        if as_json:
            echo(json_text({"text": text, "hits": [hit.as_dict() for hit in found]}))
            continue
        echo(text)
        print_hits(found)


def parted(words: list[str], encoder: str, by_photo: bool) -> tuple[Path | None, list[str], str]:
    """Tell run, photos and text apart: a folder with config.yaml is a run, the text is last."""
    rest, run = list(words), None
    if not encoder and is_file(Path(rest[0]) / "config.yaml"):
        run = Path(rest.pop(0))
    text = "" if by_photo or not rest else rest.pop()
    if not rest:
        raise UserError(
            "Photos and what to look for are both needed.",
            'Write: aape search [RUN] PHOTOS "two dogs on a beach", or --like PHOTO.',
        )
    if text and is_there(text):
        raise UserError(
            f"{text} is a file or folder, not a sentence.",
            "Put the sentence last, or give a photo with --like.",
        )
    return run, rest, text

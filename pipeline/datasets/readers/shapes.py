"""Reader of easy-VQA (Zhou 2019): 5,000 drawings of one coloured shape, with questions.

The package gives no labels. An image's colour and shape follow from its questions: "is there a
teal shape? yes" names it, "is there a circle? no" rules one out. Where the questions leave more
than one possibility (about 11 in 100 images) the image keeps its questions and gets no class.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ...errors import UserError
from ..manifest import Manifest
from ..records import CaptionedImage, Contents, Item, Question, Split
from ..splits import OWN_SPLIT_NOTE, path_hash
from .layouts import Layout
from .text_tables import read_json_text

COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")

# Every caption of an image says the same in other words, so that captioning has five references.
CAPTIONS = (
    "a {} {}",
    "a picture of a {} {}",
    "there is a {} {} in the image",
    "the image shows a {} {}",
    "a drawing of one {} {}",
    "the image contains a {} {}",
    "one {} {} on a plain background",
    "a single {} {} is present",
)
N_CAPTIONS = 5


def read_shapes(root: Path, layout: Layout, manifest: Manifest) -> Contents:
    """Read the folder ``data``; one in five of its training images becomes val, by a hash."""
    items: dict[Split, list[Item]] = {"train": [], "val": [], "test": []}
    captions: dict[Split, list[CaptionedImage]] = {"train": [], "val": [], "test": []}
    questions: dict[Split, list[Question]] = {"train": [], "val": [], "test": []}
    class_ids = {name: i for i, name in enumerate(manifest.class_names)}
    unnamed = 0
    for folder in ("train", "test"):
        rows = _questions(root / folder / "questions.json")
        for number, asked in sorted(rows.items()):
            image_id = f"{folder}/{number}"
            path = root / folder / "images" / f"{number}.png"
            split: Split = "test" if folder == "test" else _train_or_val(image_id)
            for i, (question, answer) in enumerate(asked):
                questions[split].append(
                    Question(
                        f"{image_id}/{i}", image_id, path, question, (answer,), *_types(question)
                    )
                )
            found = colour_and_shape(asked)
            if found is None:
                unnamed += 1
                continue
            name = " ".join(found)
            if name not in class_ids:
                raise UserError(f"{path} is a {name!r}, which is no class of {manifest.name!r}.")
            items[split].append(Item(path, class_ids[name]))
            captions[split].append(CaptionedImage(image_id, path, _captions(image_id, found)))
    remark = f"{unnamed} images have questions but no class: their questions leave it open"
    return Contents(items, captions, questions, split_note=OWN_SPLIT_NOTE, remarks=(remark,))


def colour_and_shape(asked: list[tuple[str, str]]) -> tuple[str, str] | None:
    """Return what the questions of one image say about it, or None if they leave it open."""
    colours, shapes = set(COLOURS), set(SHAPES)
    for question, answer in asked:
        words = question.rstrip("?").split()
        for possible, vocabulary in ((colours, COLOURS), (shapes, SHAPES)):
            if answer in vocabulary:
                possible &= {answer}
            named = next((word for word in words if word in vocabulary), None)
            if named is None:
                continue
            negated = "not" in words or "no" in words
            if answer in ("yes", "no") and (answer == "yes") == negated:
                possible.discard(named)
            else:
                possible &= {named}
    if len(colours) == len(shapes) == 1:
        return colours.pop(), shapes.pop()
    return None


def _questions(path: Path) -> dict[int, list[tuple[str, str]]]:
    by_image: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
    try:
        for question, answer, image in read_json_text(path):
            if not isinstance(question, str) or not isinstance(answer, str) or not question.split():
                raise TypeError
            by_image[int(image)].append((question, answer))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not a question file of easy-VQA.") from error
    return by_image


def _train_or_val(image_id: str) -> Split:
    return "val" if path_hash(image_id) % 5 == 0 else "train"


def _captions(image_id: str, found: tuple[str, str]) -> tuple[str, ...]:
    """Return the plain caption and four others, chosen by the image's hash."""
    others = sorted(CAPTIONS[1:], key=lambda text: path_hash(f"{image_id} {text}"))
    return tuple(text.format(*found) for text in (CAPTIONS[0], *others[: N_CAPTIONS - 1]))


def _types(question: str) -> tuple[str, str]:
    """Return the question type (its words without the colour or shape) and the answer type."""
    words = question.rstrip("?").split() or [""]
    general = " ".join("…" if word in (*COLOURS, *SHAPES) else word for word in words)
    if words[0] != "what":
        return general, "yes/no"
    return general, "color" if "color" in words else "shape"

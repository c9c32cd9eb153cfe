"""What a data set consists of: labelled images, captioned images, questions, caption contrasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..raster import RASTER_FORMATS

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

# Of photos that may be read, if what that needs is installed (see ``images.is_image_name``).
IMAGE_SUFFIXES = frozenset(
    suffix for suffixes in RASTER_FORMATS.values() for suffix in suffixes.split()
)


@dataclass(frozen=True)
class Item:
    """One labelled image; ``label`` is the class id, the position in the manifest's list."""

    path: Path
    label: int


@dataclass(frozen=True)
class CaptionedImage:
    """One image with its reference captions. ``domain`` is NoCaps' (in, near or out)."""

    image_id: str
    path: Path
    captions: tuple[str, ...]
    domain: str = ""


@dataclass(frozen=True)
class Question:
    """One question about an image with every annotator's answer, the official order kept.

    A data set with a single answer has a tuple of one.
    """

    question_id: str
    image_id: str
    path: Path
    question: str
    answers: tuple[str, ...]
    question_type: str = ""
    answer_type: str = ""


@dataclass(frozen=True)
class Contrast:
    """One image with its true caption and a hard negative (SugarCrepe)."""

    image_id: str
    path: Path
    caption: str
    negative_caption: str
    category: str


@dataclass(frozen=True)
class Contents:
    """What a layout reader found below a root. A split that is absent is an empty list.

    Attributes:
        split_note: empty, or how the split was made here since the data set publishes none.
        remarks: what was left out and why, one sentence each.
    """

    items: Mapping[Split, list[Item]] = field(default_factory=dict)
    captions: Mapping[Split, list[CaptionedImage]] = field(default_factory=dict)
    questions: Mapping[Split, list[Question]] = field(default_factory=dict)
    contrasts: Mapping[Split, list[Contrast]] = field(default_factory=dict)
    split_note: str = ""
    remarks: tuple[str, ...] = ()

"""Labels for new photos, by the adapter of a run.

n images, c classes, d embedding width, k labels an image.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..pipeline.counts import counted
from ..pipeline.datasets.images import FolderImages, look_through
from ..pipeline.datasets.patterns import matching_images
from ..pipeline.embed.images import image_features, picture_features
from ..pipeline.embed.left_out import say_left_out
from ..pipeline.errors import UserError
from ..pipeline.one_or_many import one_or_many
from ..pipeline.paths import is_folder, is_there
from ..pipeline.pictures import PictureError, as_picture
from ..pipeline.progress import step
from . import sort_photos
from .arrays import texts_as_they_are
from .asked_classes import AskedClass, asked_classes, say_untrained
from .described_names import with_descriptions
from .method.pieces import pieces
from .open_model import OpenModel, classification_weights, open_encoder
from .prediction_file import check_format, write_predictions
from .run import RunFolder

if TYPE_CHECKING:
    from ..pipeline.encoders.base import Encoder


NONE = "none of these"


@dataclass(frozen=True)
class Prediction:
    """The likeliest labels of one image, with their probabilities, best first.

    ``class_ids`` are those of the run's data set; a class that was only named has none. Where the
    best is less likely than was asked for, the only label is ``"none of these"``, and its figure is
    that of the best. ``path`` is nothing for a picture or array that was given open. ``error`` says
    why an image could not be read; it then has no labels.
    """

    path: Path | None
    labels: list[str]
    probabilities: list[float]
    class_ids: list[int | None] = field(default_factory=list)
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        ids = self.class_ids or [None] * len(self.labels)
        triples = zip(self.labels, ids, self.probabilities)
        labels = [{"label": a, "class_id": i, "p": p} for a, i, p in triples]
        path = str(self.path) if self.path else None
        return {"path": path, "labels": labels, "error": self.error or None}

    def line(self) -> str:
        """Return what a terminal shows."""
        best = zip(self.labels, self.probabilities)
        said = ", ".join(f"{label} {p:.0%}" for label, p in best)
        return f"{self.path}  {said or 'cannot be read: ' + self.error}"


@one_or_many("images", "classes", "also")
def predict(
    run: str | Path | OpenModel,
    images: Any | Sequence[Any],
    top: int = 3,
    classes: str | Sequence[str] = (),
    also: str | Sequence[str] = (),
    checkpoint: str | Path = "",
    device: str = "",
    min_confidence: float = 0.0,
    out: str | Path | None = None,
    strict: bool = False,
    describe: bool = False,
    sort_into: str | Path | None = None,
    *,
    encoder: Encoder | None = None,
) -> list[Prediction]:
    """Label images with the adapter of a run.

    Classes that were trained have their own terms. All others are new classes: those of the data
    set that were held back, and any that you name with ``also``.

    Args:
        run: a run folder of classification that was trained on a bank; or what ``open_model``
            made of one, where a photo costs its own time alone.
        images: files, folders that are searched at any depth, patterns such as ``photos/*.jpg``,
            Pillow's images, or arrays (h, w), (h, w, 3) or (h, w, 4).
        top: k, labels to return for each image.
        classes: names or class ids to choose from; by default all of the run's data set.
        also: further names, of which no photo was ever seen.
        checkpoint: local weights of the encoder, where the run was made with such; where they lie
            is never taken from the run.
        device: ``auto``, ``cpu``, ``cuda``; by default the run's.
        min_confidence: below this probability the label is ``"none of these"``.
        out: also write a file: ``.csv``, ``.json``, ``.jsonl`` or ``.parquet``.
        strict: stop at an image that cannot be read; otherwise its prediction has an ``error``.
        describe: have a language model describe the classes of ``also``, where the run's class
            texts hold descriptions.
        sort_into: also copy each photo into a folder here that is named like its best label;
            nothing is overwritten.
        encoder: an open encoder instead of the one that the run names.

    Raises:
        UserError: the run has no adapter of classification, was trained on a file of features,
            belongs to another encoder, there are no images, or with ``strict`` one cannot be read.
    """
    if out is not None:
        check_format(out)
    if top < 1:
        raise UserError(f"top is {top}.", "Ask for one label or more.")
    folder = run.folder if isinstance(run, OpenModel) else RunFolder.open(run)
    given = _files(images)
    if isinstance(run, OpenModel):
        model, asked = run, asked_classes(run.about, classes, also, say=False)
        features, kept, errors = model.features_of(given, strict)
    else:
        tensors, about = classification_weights(folder)
        asked = asked_classes(about, classes, also)
        say_untrained(about, asked)
        opened = encoder or open_encoder(folder, about, str(checkpoint), device)
        model = OpenModel(folder, opened, tensors, about)
        features, kept, errors = _features(opened, given, strict)
    texts = model.texts_of(asked, cache=not isinstance(run, OpenModel)).texts
    if describe:
        text = with_descriptions(texts.template, asked, model.encoder, model.about)
        texts = texts_as_they_are(text, texts.seen)
    tops = [
        model.fitted.logits(rows, texts).softmax(-1).topk(min(top, len(asked)), dim=-1)
        for rows in pieces(features, len(asked))
    ]
    numbers = [line for found in tops for line in found.indices.tolist()]
    shares = [line for found in tops for line in found.values.tolist()]
    labelled = {
        place: _prediction(
            _path_of(given[place]), [asked[i] for i in which], values, min_confidence
        )
        for place, which, values in zip(kept, numbers, shares)
    }
    found = [
        labelled.get(place) or Prediction(_path_of(image), [], [], error=errors.get(place, ""))
        for place, image in enumerate(given)
    ]
    if out is not None:
        write_predictions(out, found)
    if sort_into is not None:
        for name, count in sorted(sort_photos.sort_into(sort_into, found).items()):
            step(f"{counted(count, 'photo', 'photos')} in {Path(sort_into) / name}")
    return found


def _path_of(image: Any) -> Path | None:
    return image if isinstance(image, Path) else None


def _prediction(
    path: Path | None, classes: list[AskedClass], shares: list[float], least: float
) -> Prediction:
    rounded = [round(share, 4) for share in shares]
    if shares[0] < least:
        return Prediction(path, [NONE], rounded[:1], [None])
    return Prediction(
        path, [entry.label for entry in classes], rounded, [entry.class_id for entry in classes]
    )


def _files(images: Sequence[Any]) -> list[Any]:
    """Return paths, with folders and patterns searched through, and open pictures as they are."""
    found: list[Any] = []
    for given in images:
        if not isinstance(given, str | Path):
            found.append(given)
            continue
        if not str(given).strip():
            raise UserError("The name of an image is empty.", "Name a file or a folder.")
        path = Path(given)
        if is_folder(path):
            found += _inside(path)
        elif is_there(path):
            found.append(path)
        elif glob.has_magic(str(given)):
            found += _matching(str(given))
        else:
            raise UserError(f"There is no image or folder {given}.")
    return found


def _inside(folder: Path) -> list[Path]:
    inside = look_through(folder)
    _say_skipped(inside)
    if not inside.images:
        raise UserError(f"There are no images in {folder}.", "; ".join(inside.remarks()))
    return inside.images


def _say_skipped(inside: FolderImages) -> None:
    for remark in inside.remarks():
        step(remark)


def _matching(pattern: str) -> list[Path]:
    """Return the images that match a pattern, and those in folders that do."""
    found = matching_images(pattern)
    if not found.images:
        raise UserError(f"No image matches {pattern}.", "; ".join(found.remarks()))
    _say_skipped(found)
    return found.images


def _features(
    encoder: Encoder, asked: Sequence[Any], strict: bool
) -> tuple[Tensor, list[int], dict[int, str]]:
    """Return features (m, d) of what can be read, its places in ``asked``, and errors by place."""
    errors: dict[int, str] = {}
    parts, kept = [np.zeros((0, encoder.dim), np.float32)], []
    files = [place for place, given in enumerate(asked) if isinstance(given, Path)]
    if files:
        found = image_features(encoder, [asked[place] for place in files], strict=strict)
        say_left_out(found.unreadable, len(files), "photos")
        parts.append(found.x)
        kept += [files[i] for i in found.kept]
        lost = sorted(set(files) - set(kept))
        errors |= {place: entry.reason for place, entry in zip(lost, found.unreadable)}
    pictures = []
    for place, given in enumerate(asked):
        if isinstance(given, Path):
            continue
        try:
            pictures.append(as_picture(given))
            kept.append(place)
        except PictureError as error:
            if strict:
                raise UserError(f"Image {place} cannot be read: {error}.") from error
            errors[place] = str(error)
    parts.append(picture_features(encoder, pictures))
    return torch.from_numpy(np.concatenate(parts)), kept, errors

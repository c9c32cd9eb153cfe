"""Labels for new photos, by the adapter of a run.

n images, c classes, d embedding width, k labels an image.
"""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..pipeline.datasets.images import FolderImages, is_image_name, look_through
from ..pipeline.embed.images import image_features, picture_features, say_left_out
from ..pipeline.embed.texts import class_embeddings
from ..pipeline.errors import UserError
from ..pipeline.pictures import PictureError, as_picture
from ..pipeline.progress import step
from .config import Config
from .method.adapter import FittedAdapter
from .method.problem import ClassSet
from .run import RunFolder, own_weights

if TYPE_CHECKING:
    from ..pipeline.encoders.base import Encoder


@dataclass(frozen=True)
class Prediction:
    """The likeliest labels of one image, with their probabilities, best first.

    ``path`` is nothing for a picture or array that was given open. ``error`` says why an image
    could not be read; it then has no labels.
    """

    path: Path | None
    labels: list[str]
    probabilities: list[float]
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        pairs = zip(self.labels, self.probabilities)
        return {
            "path": str(self.path) if self.path else None,
            "labels": [{"label": a, "p": b} for a, b in pairs],
            "error": self.error or None,
        }

    def line(self) -> str:
        """Return what the command line shows."""
        best = zip(self.labels, self.probabilities)
        said = ", ".join(f"{label} {p:.0%}" for label, p in best)
        return f"{self.path}  {said or 'cannot be read: ' + self.error}"


def predict(
    run: str | Path,
    images: Sequence[Any],
    *,
    top: int = 3,
    classes: Sequence[str] = (),
    more: Sequence[str] = (),
    encoder: Encoder | None = None,
    checkpoint: str = "",
    strict: bool = False,
) -> list[Prediction]:
    """Label images with the adapter of a run.

    Classes that were trained have their own terms. All others are new classes, judged by their
    names alone: those of the data set that were held back, and any ``more`` that you name.

    Args:
        run: a run folder of classification that was trained on a bank.
        images: files, folders that are searched at any depth, patterns such as ``photos/*.jpg``,
            Pillow's images, or arrays (h, w), (h, w, 3) or (h, w, 4).
        top: k, labels to return for each image.
        classes: names to choose from; by default all of the run's data set.
        more: further names, of which no photo was ever seen.
        encoder: an open encoder instead of the one that the run names.
        checkpoint: local weights of the encoder, where the run was made with such; where they lie
            is never taken from the run.
        strict: stop at an image that cannot be read; otherwise its prediction has an ``error``.

    Raises:
        UserError: the run has no adapter of classification, was trained on a file of features,
            belongs to another encoder, there are no images, or with ``strict`` one cannot be read.
    """
    folder = RunFolder.open(run)
    tensors, about = folder.load_weights()
    if about.get("kind") != "classification":
        raise UserError(
            f"{folder.path} has no adapter of classification.",
            "Make one with: aape train --bank BANK --protocol fewshot.",
        )
    if not about.get("template"):
        raise UserError(
            f"{folder.path} was trained on a file of features, which says nothing of photos.",
            "Train on a bank: aape train --bank BANK.",
        )
    asked = _files(images)
    encoder = encoder or _encoder(folder, about, checkpoint)
    if encoder.fingerprint != about["encoder"]:
        raise UserError(
            f"The run was trained on features of {about['encoder']}, not of {encoder.fingerprint}."
        )
    trained: list[str] = about["class_names"]
    names = list(dict.fromkeys([*(classes or about["all_class_names"]), *more]))
    fitted = FittedAdapter.load(tensors, about)
    text = _class_texts(names, encoder, tensors, about)
    seen = torch.tensor([trained.index(name) if name in trained else -1 for name in names])
    texts = ClassSet(text, text, text, None, seen, tuple(names))
    features, kept, errors = _features(encoder, asked, strict)
    shares = fitted.logits(torch.from_numpy(features), texts).softmax(-1)  # (n, c)
    best = shares.topk(min(top, len(names)), dim=-1)
    found = {
        place: ([names[i] for i in which], [round(p, 4) for p in values])
        for place, which, values in zip(kept, best.indices.tolist(), best.values.tolist())
    }
    return [
        Prediction(
            given if isinstance(given, Path) else None,
            *found.get(place, ([], [])),
            error=errors.get(place, ""),
        )
        for place, given in enumerate(asked)
    ]


def _class_texts(
    names: Sequence[str], encoder: Encoder, tensors: dict[str, Tensor], about: dict[str, Any]
) -> Tensor:
    """Return the texts (c, d) that the adapter wants: kept ones, and for other names templates."""
    ensemble = about.get("class_text", {}).get("base") == "ensemble"
    templates = about["ensemble"] if ensemble else [about["template"]]
    text = torch.from_numpy(class_embeddings(encoder, names, templates))
    kept: list[str] = about["all_class_names"] if "class_texts" in tensors else []
    where = {name: row for row, name in reversed(list(enumerate(kept)))}
    for i, name in enumerate(names):
        if name in where:
            text[i] = tensors["class_texts"][where[name]]
    return text


def to_csv(predictions: Sequence[Prediction]) -> str:
    """Return a table: the path, label and probability of each rank, why an image has none."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    ranks = range(1, max((len(row.labels) for row in predictions), default=0) + 1)
    writer.writerow(
        ["path", *[f"{name}_{rank}" for rank in ranks for name in ("label", "p")], "error"]
    )
    for row in predictions:
        cells = [value for pair in zip(row.labels, row.probabilities) for value in pair]
        cells += [""] * (2 * len(ranks) - len(cells))
        writer.writerow([row.path or "", *cells, row.error])
    return stream.getvalue()


def _files(images: Sequence[Any]) -> list[Any]:
    """Return paths, with folders and patterns searched through, and open pictures as they are."""
    found: list[Any] = []
    for given in images:
        if not isinstance(given, str | Path):
            found.append(given)
            continue
        path = Path(given)
        if path.is_dir():
            found += _inside(path)
        elif path.exists() or path.is_symlink():
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
    found: list[Path] = []
    names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute one)
    matches = [Path(name) for name in names]
    for path in matches:
        if path.is_dir():
            # with ** the folder's own images match by themselves
            found += [] if "**" in pattern else look_through(path).images
        elif is_image_name(path.name):
            found.append(path)
    if not found:
        raise UserError(f"No image matches {pattern}.")
    skipped = sum(not path.is_dir() for path in matches) - sum(path in matches for path in found)
    if skipped:
        step(f"{skipped:,} files that match {pattern} are no images by their names")
    return found


def _features(
    encoder: Encoder, asked: Sequence[Any], strict: bool
) -> tuple[np.ndarray, list[int], dict[int, str]]:
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
    return np.concatenate(parts), kept, errors


def _encoder(folder: RunFolder, about: dict[str, Any], checkpoint: str) -> Encoder:
    """Open the encoder that the run was trained with."""
    from ..pipeline.encoders import load_encoder

    wanted = Config.from_yaml(folder.path / "config.yaml").encoder
    name = about["encoder"].split("@")[0] if wanted.name == "auto" else wanted.name
    return load_encoder(name, own_weights(name, wanted.checkpoint, checkpoint), wanted.device)

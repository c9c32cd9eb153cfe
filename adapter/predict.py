"""Labels for new photos, by the adapter of a run.

n images, c classes, d embedding width, k labels an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..pipeline.datasets.images import list_images
from ..pipeline.embed.images import image_features
from ..pipeline.embed.texts import class_embeddings
from ..pipeline.errors import UserError
from ..pipeline.settings import read_source
from .arrays import texts_as_they_are
from .asked_classes import AskedClass, asked_classes
from .config import Config
from .method.adapter import FittedAdapter
from .prediction_file import check_format, write_predictions
from .run import RunFolder, own_weights

if TYPE_CHECKING:
    from ..pipeline.encoders.base import Encoder


NONE = "none of these"


@dataclass(frozen=True)
class Prediction:
    """The likeliest labels of one image, with their probabilities, best first.

    ``class_ids`` are those of the run's data set; a class that was only named has none. Where the
    best is less likely than was asked for, the only label is ``"none of these"``, and its figure is
    that of the best.
    """

    path: Path
    labels: list[str]
    probabilities: list[float]
    class_ids: list[int | None] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        ids = self.class_ids or [None] * len(self.labels)
        triples = zip(self.labels, ids, self.probabilities)
        labels = [{"label": a, "class_id": i, "p": p} for a, i, p in triples]
        return {"path": str(self.path), "labels": labels}

    def line(self) -> str:
        """Return what a terminal shows."""
        best = zip(self.labels, self.probabilities)
        return f"{self.path}  " + ", ".join(f"{label} {p:.0%}" for label, p in best)


def predict(
    run: str | Path,
    images: Sequence[str | Path],
    top: int = 3,
    classes: Sequence[str] = (),
    also: Sequence[str] = (),
    checkpoint: str | Path = "",
    device: str = "",
    min_confidence: float = 0.0,
    out: str | Path | None = None,
    *,
    encoder: Encoder | None = None,
) -> list[Prediction]:
    """Label images with the adapter of a run.

    Classes that were trained have their own terms. All others are new classes: those of the data
    set that were held back, and any that you name with ``also``.

    Args:
        run: a run folder of classification that was trained on a bank.
        images: files, or folders that are searched at any depth.
        top: k, labels to return for each image.
        classes: names or class ids to choose from; by default all of the run's data set.
        also: further names, of which no photo was ever seen.
        checkpoint: local weights of the encoder, where the run was made with such; where they lie
            is never taken from the run.
        device: ``auto``, ``cpu``, ``cuda``; by default the run's.
        min_confidence: below this probability the label is ``"none of these"``.
        out: also write a file: ``.csv``, ``.json``, ``.jsonl`` or ``.parquet``.
        encoder: an open encoder instead of the one that the run names.

    Raises:
        UserError: the run has no adapter of classification, was trained on a file of features,
            belongs to another encoder, or an image cannot be read.
    """
    if out is not None:
        check_format(out)
    folder = RunFolder.open(run)
    tensors, about = _adapter_of(folder)
    paths = _files(images)
    asked = asked_classes(about, classes, also)
    encoder = encoder or _encoder(folder, about, str(checkpoint), device)
    if encoder.fingerprint != about["encoder"]:
        raise UserError(
            f"The run was trained on features of {about['encoder']}, not of {encoder.fingerprint}."
        )
    fitted = FittedAdapter.load(tensors, about)
    text = _class_texts(asked, encoder, tensors, about)
    classes_asked = texts_as_they_are(text, torch.tensor([entry.seen for entry in asked]))
    x = torch.from_numpy(image_features(encoder, paths).x)
    shares = fitted.logits(x, classes_asked).softmax(-1)  # (n, c)
    best = shares.topk(min(top, len(asked)), dim=-1)
    found = [
        _prediction(path, [asked[i] for i in which], values, min_confidence)
        for path, which, values in zip(paths, best.indices.tolist(), best.values.tolist())
    ]
    if out is not None:
        write_predictions(out, found)
    return found


def _prediction(
    path: Path, classes: list[AskedClass], shares: list[float], least: float
) -> Prediction:
    rounded = [round(share, 4) for share in shares]
    if shares[0] < least:
        return Prediction(path, [NONE], rounded[:1], [None])
    return Prediction(
        path, [entry.label for entry in classes], rounded, [entry.class_id for entry in classes]
    )


def _adapter_of(folder: RunFolder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and description of a run that can label photos.

    Raises:
        UserError: it cannot; what it is, and what to do with it.
    """
    if read_source(folder.path / "config.yaml").get("task") == "captions":
        raise UserError(
            f"{folder.path} is a run trained on captions: it has no classes to predict.",
            f"Use it with: aape eval retrieval {folder.path} (or captioning, vqa).",
        )
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
    return tensors, about


def _class_texts(
    asked: Sequence[AskedClass],
    encoder: Encoder,
    tensors: dict[str, Tensor],
    about: dict[str, Any],
) -> Tensor:
    """Return the texts (c, d) that the adapter wants: kept ones, and for other names templates."""
    ensemble = about.get("class_text", {}).get("base") == "ensemble"
    templates = about["ensemble"] if ensemble else [about["template"]]
    names = [entry.name for entry in asked]
    text = torch.from_numpy(class_embeddings(encoder, names, templates))
    kept = tensors.get("class_texts")
    for i, entry in enumerate(asked):
        if entry.seen >= 0:
            text[i] = tensors["text"][entry.seen]
        elif kept is not None and entry.class_id is not None:
            text[i] = kept[entry.class_id]
    return text


def _files(images: Sequence[str | Path]) -> list[Path]:
    found: list[Path] = []
    for given in map(Path, images):
        if not given.exists():
            raise UserError(f"There is no image or folder {given}.")
        inside = list_images(given) if given.is_dir() else [given]
        if not inside:
            raise UserError(f"There are no images in {given}.")
        found += inside
    return found


def _encoder(folder: RunFolder, about: dict[str, Any], checkpoint: str, device: str) -> Encoder:
    """Open the encoder that the run was trained with."""
    from ..pipeline.encoders import load_encoder

    wanted = Config.from_yaml(folder.path / "config.yaml").encoder
    name = about["encoder"].split("@")[0] if wanted.name == "auto" else wanted.name
    return load_encoder(
        name, own_weights(name, wanted.checkpoint, checkpoint), device or wanted.device
    )

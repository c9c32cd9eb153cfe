"""Labels for new photos, by the adapter of a run.

n images, c classes, d embedding width, k labels an image.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..pipeline.datasets.images import list_images
from ..pipeline.embed.images import image_features
from ..pipeline.embed.texts import class_embeddings
from ..pipeline.errors import UserError
from .config import Config
from .method.adapter import FittedAdapter
from .method.problem import ClassSet
from .run import RunFolder, own_weights

if TYPE_CHECKING:
    from ..pipeline.encoders.base import Encoder


@dataclass(frozen=True)
class Prediction:
    """The likeliest labels of one image, with their probabilities, best first."""

    path: Path
    labels: list[str]
    probabilities: list[float]

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        pairs = zip(self.labels, self.probabilities)
        return {"path": str(self.path), "labels": [{"label": a, "p": b} for a, b in pairs]}


def predict(
    run: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 3,
    classes: Sequence[str] = (),
    more: Sequence[str] = (),
    encoder: Encoder | None = None,
    checkpoint: str = "",
) -> list[Prediction]:
    """Label images with the adapter of a run.

    Classes that were trained have their own terms. All others are new classes, judged by their
    names alone: those of the data set that were held back, and any ``more`` that you name.

    Args:
        run: a run folder of classification that was trained on a bank.
        images: files, or folders that are searched at any depth.
        top: k, labels to return for each image.
        classes: names to choose from; by default all of the run's data set.
        more: further names, of which no photo was ever seen.
        encoder: an open encoder instead of the one that the run names.
        checkpoint: local weights of the encoder, where the run was made with such; where they lie
            is never taken from the run.

    Raises:
        UserError: the run has no adapter of classification, was trained on a file of features,
            belongs to another encoder, or an image cannot be read.
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
    paths = _files(images)
    encoder = encoder or _encoder(folder, about, checkpoint)
    if encoder.fingerprint != about["encoder"]:
        raise UserError(
            f"The run was trained on features of {about['encoder']}, not of {encoder.fingerprint}."
        )
    trained: list[str] = about["class_names"]
    names = list(dict.fromkeys([*(classes or about["all_class_names"]), *more]))
    fitted = FittedAdapter.load(tensors, about)
    template = torch.from_numpy(class_embeddings(encoder, names, [about["template"]]))
    seen = torch.tensor([trained.index(name) if name in trained else -1 for name in names])
    # what stands for a trained class was chosen with the bank, and is kept with the adapter
    text = torch.where(seen[:, None] >= 0, fitted.text[seen.clamp_min(0)], template)
    texts = ClassSet(text, text, text, None, seen, tuple(names))
    x = torch.from_numpy(image_features(encoder, paths).x)
    shares = fitted.logits(x, texts).softmax(-1)  # (n, c)
    best = shares.topk(min(top, len(names)), dim=-1)
    return [
        Prediction(path, [names[i] for i in which], [round(p, 4) for p in values])
        for path, which, values in zip(paths, best.indices.tolist(), best.values.tolist())
    ]


def to_csv(predictions: Sequence[Prediction]) -> str:
    """Return a table: the path, then label and probability of each rank."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    ranks = range(1, max((len(row.labels) for row in predictions), default=0) + 1)
    writer.writerow(["path", *[f"{name}_{rank}" for rank in ranks for name in ("label", "p")]])
    for row in predictions:
        pairs = zip(row.labels, row.probabilities)
        writer.writerow([row.path, *[value for pair in pairs for value in pair]])
    return stream.getvalue()


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


def _encoder(folder: RunFolder, about: dict[str, Any], checkpoint: str) -> Encoder:
    """Open the encoder that the run was trained with."""
    from ..pipeline.encoders import load_encoder

    wanted = Config.from_yaml(folder.path / "config.yaml").encoder
    name = about["encoder"].split("@")[0] if wanted.name == "auto" else wanted.name
    return load_encoder(name, own_weights(name, wanted.checkpoint, checkpoint), wanted.device)

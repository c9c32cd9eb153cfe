"""A run opened for export: its adapter folded for all of its classes, and the facts beside it.

c classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ... import __version__
from ...pipeline.encoders.photo_transforms import Evaluation
from ...pipeline.errors import UserError
from ..method.adapter import FittedAdapter
from ..method.problem import ClassSet
from ..open_model import OpenModel
from ..run import RunFolder
from ..run_classes import trained_positions
from .folded import FoldedAdapter, PhotoToLogits

if TYPE_CHECKING:
    from ...pipeline.encoders.base import Encoder


def open_folded(
    run: str | Path, *, photo: bool, encoder: Encoder | None = None, checkpoint: str = ""
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the module to export and what its file says of it.

    Raises:
        UserError: the run has no adapter of classification, keeps no texts of some classes, or its
            encoder cannot be exported.
    """
    folder = RunFolder.open(run)
    tensors, about = folder.load_classifier()
    names = [str(name) for name in about["all_class_names"]]
    fitted = FittedAdapter.load(tensors, about)
    seen = torch.tensor(trained_positions(about))
    texts = kept_texts(tensors, seen)
    model = None
    if photo or texts is None:
        if not about.get("template"):
            raise UserError(
                f"{folder.path} was trained on a file of features: it knows neither photos nor the"
                " texts of classes that it was not trained on.",
                "Train on a bank: aape train --bank BANK.",
            )
        model = OpenModel.open(run, encoder=encoder, checkpoint=checkpoint)
        texts = model.classes().texts.template
    assert texts is not None
    classes = ClassSet(texts, texts, texts, None, seen, tuple(names))
    folded = FoldedAdapter(fitted, classes).eval()
    facts: dict[str, Any] = {
        "aape": __version__,
        "encoder": about["encoder"],
        "dataset": about["dataset"],
        "classes": names,
        "trained": [bool(place >= 0) for place in seen.tolist()],
        "input": "image features, unit length",
        "width": texts.shape[1],
    }
    if model is None or not photo:
        return folded, facts
    tower, reading = image_tower(model.encoder)
    facts |= {"input": "pixels from 0 to 1", **reading}
    return PhotoToLogits(tower, folded, reading["mean"], reading["std"]).eval(), facts


def kept_texts(tensors: dict[str, Tensor], seen: Tensor) -> Tensor | None:
    """Return the texts (c, d) of all classes where the run keeps them, else nothing."""
    if "class_texts" in tensors:
        return tensors["class_texts"]
    return tensors["text"][seen] if bool((seen >= 0).all()) else None


def image_tower(encoder: Encoder) -> tuple[nn.Module, dict[str, Any]]:
    """Return the encoder's image tower in float32, and how photos are read for it.

    Raises:
        UserError: the encoder's tower or its preprocessing cannot be taken apart.
    """
    tower = getattr(encoder, "image_tower", lambda: None)()
    reading = how_photos_are_read(encoder.transform)
    if tower is None or reading is None:
        raise UserError(
            f"Whole photos cannot be exported with the encoder {encoder.id}.",
            "Leave out --photo: features to logits can.",
        )
    return tower.eval(), reading


def how_photos_are_read(transform: Any) -> dict[str, Any] | None:
    """Return the numbers that another program needs to read a photo as an encoder does.

    Nothing is returned where a photo is not resized by its short side, cut to a square and scaled.

    >>> how_photos_are_read(Evaluation(224, 256, (0.5,) * 3, (0.5,) * 3))["crop"]
    224
    """
    if isinstance(transform, Evaluation):
        resize, crop, mean, std = transform.resize, transform.size, transform.mean, transform.std
    else:
        from torchvision import transforms as T

        steps = {type(step): step for step in _steps(transform)}
        if not {T.Resize, T.CenterCrop, T.Normalize} <= set(steps):
            return None
        if steps[T.Resize].interpolation != T.InterpolationMode.BICUBIC:
            return None
        resize, crop = (_side(steps[kind].size) for kind in (T.Resize, T.CenterCrop))
        mean, std = steps[T.Normalize].mean, steps[T.Normalize].std
    return {
        "resize": resize, "crop": crop, "interpolation": "bicubic",
        "mean": [float(value) for value in mean], "std": [float(value) for value in std],
    }  # fmt: skip


def _steps(transform: Any) -> Iterator[Any]:
    """Yield the steps of torchvision's compositions, also of those within another."""
    for step in getattr(transform, "transforms", [transform]):
        if step is not transform:
            yield from _steps(step)
        else:
            yield step


def _side(size: Any) -> int:
    return int(size if isinstance(size, int) else size[0])

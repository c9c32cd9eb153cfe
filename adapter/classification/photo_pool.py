"""A pool of photos without labels: a folder, a file of features, or the training photos.

n images, d embedding width.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.errors import UserError
from .bank_source import BankSource
from .draws import Source
from .feature_file import FileSource, read_features

if TYPE_CHECKING:
    from ...pipeline.encoders.base import Encoder

POOL_OF_TRAINING = "train"


def read_pool(name: str, source: Source, encoder: Encoder | None) -> Tensor:
    """Return the features (n, d) of a pool: a folder, a file of features, or ``train``.

    Raises:
        UserError: there is nothing there, or its features do not fit the class texts.
    """
    if name == POOL_OF_TRAINING:
        return torch.from_numpy(_training_photos(source))
    path = Path(name)
    if path.suffix == ".safetensors":
        tensors, _ = read_features(path)
        key = next((k for k in ("unlabelled.features", "features") if k in tensors), "")
        if not key:
            raise UserError(
                f"{path} has no tensor 'unlabelled.features' (it has {', '.join(sorted(tensors))})."
            )
        x = torch.from_numpy(tensors[key].astype(np.float32))
        if x.ndim != 2 or not torch.isfinite(x).all():
            raise UserError(f"{path}: {key} is no table of finite values, photos by width.")
        _check_width(path, x, source)
        return F.normalize(x, dim=-1)
    if encoder is None or not isinstance(source, BankSource):
        raise UserError(
            f"A folder of photos ({path}) needs an encoder, and the source is a file of features.",
            "Train on a bank, or name a file of features as the pool.",
        )
    from ...pipeline.datasets.images import list_images
    from ...pipeline.embed.images import image_features
    from ...pipeline.embed.left_out import say_left_out

    if not path.is_dir():
        raise UserError(f"There is no folder of photos {path}.")
    photos = list_images(path)
    found = image_features(encoder, photos, strict=source.strict)
    say_left_out(found.unreadable, len(photos), "photos without labels")
    if not len(found.x):
        raise UserError(f"No photo of {path} can be read.")
    return torch.from_numpy(found.x)


def _training_photos(source: Source) -> np.ndarray:
    if isinstance(source, BankSource):
        return source.features(source.images.items("train")).x
    if isinstance(source, FileSource):
        fixed = [k for k in source.tensors if k.startswith("train") and k.endswith(".features")]
        largest = max(fixed, key=lambda k: len(source.tensors[k]), default="train.features")
        return source.split(largest.removesuffix(".features")).x
    raise UserError("These data have no training photos to use as a pool.")


def _check_width(path: Path, x: Tensor, source: Source) -> None:
    if isinstance(source, (FileSource, BankSource)):
        width = source.texts.template.shape[1]
        if x.shape[1] != width:
            raise UserError(
                f"The photos of {path} have width {x.shape[1]}, the class texts {width}.",
                "Embed both with the same encoder.",
            )


def without(pool: Tensor, known: Tensor) -> Tensor:
    """Return the photos of a pool (n, d) that are not among known ones (m, d)."""
    if not len(known) or not len(pool):
        return pool
    twice = torch.cat([(rows @ known.T).amax(1) > 1 - 1e-5 for rows in pool.split(4096)])
    return pool[~twice]

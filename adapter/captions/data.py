"""Captioned images as features: which train, which validate, who shares a caption with whom.

n  images   m  captions of an image   d  embedding width   t  captions of all images
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...pipeline.datasets.splits import path_hash
from ...pipeline.embed.images import Features, image_features
from ...pipeline.embed.left_out import cannot_be_read, check_there, say_left_out
from ...pipeline.embed.texts import encode_texts
from ...pipeline.errors import UserError
from ...pipeline.progress import step

if TYPE_CHECKING:
    from ...pipeline.datasets import CaptionedImage, Dataset
    from ...pipeline.encoders.base import Encoder

T = TypeVar("T")
_MOST_VALIDATION = 5000  # as many as Karpathy's split of COCO has


@dataclass
class CaptionSet:
    """Features of captioned images: x (n, d), p (n, m, d) zero padded, mask (n, m)."""

    images: list[CaptionedImage]
    x: Tensor
    p: Tensor
    mask: Tensor

    def flat(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return all captions: features (t, d), the number of their image (t,), texts."""
        owner = np.repeat(np.arange(len(self.images)), self.mask.sum(1).numpy())
        texts = [text for image in self.images for text in image.captions]
        return self.p[self.mask].numpy(), owner, texts


def caption_set(
    encoder: Encoder, images: Sequence[CaptionedImage], what: str, strict: bool = False
) -> CaptionSet:
    """Encode images and captions (both cached).

    Images without captions, and those that cannot be read, are left out and counted; with
    ``strict`` the latter are an error.

    Raises:
        UserError: no image has a caption, or none can be read.
    """
    kept = []
    for image in images:
        captions = tuple(text for text in image.captions if text.strip())
        if captions:
            kept.append(image if captions == image.captions else replace(image, captions=captions))
    if not kept:
        raise UserError(f"No {what} image has a caption.", "Check the annotation file.")
    if len(kept) < len(images):
        step(f"{len(images) - len(kept)} {what} images have no caption and are left out.")
    found = readable_features(encoder, [image.path for image in kept], what, strict=strict)
    kept = [kept[i] for i in found.kept]
    x = torch.from_numpy(found.x)
    counts = [len(image.captions) for image in kept]
    texts = encode_texts(encoder, [text for image in kept for text in image.captions])
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    p = torch.zeros(*mask.shape, x.shape[1])
    p[mask] = torch.from_numpy(texts)
    return CaptionSet(kept, x, p, mask)


def readable_features(
    encoder: Encoder, paths: Sequence[Path], what: str, *, strict: bool, tokens: bool = False
) -> Features:
    """Return the features of the images that can be read; say how many cannot.

    Raises:
        UserError: none can be read, one does not exist, or with ``strict`` one cannot be read.
    """
    found = image_features(encoder, paths, tokens=tokens, strict=strict)
    check_there(found.unreadable, len(paths))
    if not len(found.kept):
        raise cannot_be_read(found.unreadable, len(paths))
    say_left_out(found.unreadable, len(paths), f"{what} images")
    return found


def training_and_validation(
    dataset: Dataset,
) -> tuple[list[CaptionedImage], list[CaptionedImage]]:
    """Return the captioned images to train on and those to choose on.

    Where a data set has no validation split (COCO without Karpathy's file), one captioned training
    image in five is held out, 5,000 at most, by the hash of its id: the same on every machine.

    Raises:
        UserError: there are no captioned training images, or a single one and no validation split.
    """
    train = dataset.captions("train")
    try:
        return train, dataset.captions("val")
    except UserError:
        described = [image for image in train if any(text.strip() for text in image.captions)]
        count = min(_MOST_VALIDATION, max(1, len(described) // 5))
        if count >= len(described):
            raise
    ranked = sorted(described, key=lambda image: (path_hash(image.image_id), image.image_id))
    held_out = {image.image_id for image in ranked[:count]}
    return (
        [image for image in train if image.image_id not in held_out],
        [image for image in train if image.image_id in held_out],
    )


def training_part(dataset: Dataset) -> list[CaptionedImage]:
    """Return the captioned training images without those that are held out for validation.

    A single image is trained on, whether or not another one could be held out.

    Raises:
        UserError: there are none.
    """
    try:
        return training_and_validation(dataset)[0]
    except UserError:
        return dataset.captions("train")


def some(rows: Sequence[T], count: int) -> list[T]:
    """Return ``count`` rows, always the same ones, in their order; all if ``count`` is 0."""
    if not count or count >= len(rows):
        return list(rows)
    chosen = np.random.default_rng(0).permutation(len(rows))[:count]
    return [rows[index] for index in sorted(chosen)]


def relevance_groups(captions: Sequence[Sequence[str]]) -> np.ndarray:
    """Number images so that those which share a caption word for word share a number.

    In photo collections that hardly happens, and the numbers are the images'. In sets such as
    ``shapes``, where one caption is true of many images, every such image is a right answer.
    """
    parent = list(range(len(captions)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first: dict[str, int] = {}
    for index, group in enumerate(captions):
        for text in group:
            parent[root(index)] = root(first.setdefault(text, index))
    return np.array([root(index) for index in range(len(captions))])

"""The photos that a user names: files and folders to paths, and features of those that open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...pipeline.datasets.images import look_through
from ...pipeline.embed.images import image_features
from ...pipeline.errors import UserError
from ...pipeline.paths import is_there
from ...pipeline.pictures import PictureError, read_picture
from ...pipeline.progress import step

if TYPE_CHECKING:
    from ...pipeline.encoders.base import Encoder


@dataclass(frozen=True)
class OpenedPhotos:
    """Features of the photos that can be read.

    Attributes:
        kept: (m,) their positions among those that were asked for.
        x: (m, d), unit length.
        tokens: (m, t, e) before pooling, or nothing if they were not wanted.
        unreadable: why the others cannot be read, by position.
    """

    kept: list[int]
    x: np.ndarray
    tokens: np.ndarray | None
    unreadable: dict[int, str]


def listed_photos(photos: Sequence[str | Path]) -> list[Path]:
    """Return files as they are and the images in folders, at any depth, sorted.

    Raises:
        UserError: one does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for name in photos:
        given = Path(name)
        if not str(name).strip():
            raise UserError("The name of a photo is empty.", "Name a file or a folder.")
        if not is_there(given):
            raise UserError(f"There is no photo or folder {given}.")
        inside = [given]
        if given.is_dir():
            looked = look_through(given)
            inside = looked.images
            for remark in looked.remarks():
                step(f"{given}: {remark}")
        if not inside:
            raise UserError(f"There are no photos in {given}.")
        found += inside
    if not found:
        raise UserError("There are no photos.", "Name files or folders.")
    return found


def open_photos(encoder: Encoder, paths: Sequence[Path], *, tokens: bool = False) -> OpenedPhotos:
    """Encode photos, or read what was encoded before; those that cannot be read are left out."""
    unreadable: dict[int, str] = {}
    try:
        found = image_features(encoder, paths, tokens=tokens)
    except UserError:
        # only now is every photo opened by itself: the usual case pays nothing for the rare one
        unreadable = {i: why for i, path in enumerate(paths) if (why := _why_unreadable(path))}
        if not unreadable:
            raise
        readable = [path for i, path in enumerate(paths) if i not in unreadable]
        if not readable:
            return OpenedPhotos([], np.zeros((0, encoder.dim), np.float32), None, unreadable)
        found = image_features(encoder, readable, tokens=tokens)
    kept = [i for i in range(len(paths)) if i not in unreadable]
    return OpenedPhotos(kept, found.x, found.tokens, unreadable)


def _why_unreadable(path: Path) -> str:
    try:
        read_picture(path)
    except PictureError as error:
        return str(error)
    return ""

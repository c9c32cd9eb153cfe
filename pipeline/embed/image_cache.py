"""What is kept of images: a row a view, and a map of tokens where wished, found by what they are.

n images, v augmented views, d width of the joint space, t tokens of an image, e their width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from ..encoders.base import folder_name
from ..files import cache_folder, hash_value
from ..pictures import READING_VERSION
from .shards import RowStore, row_key

if TYPE_CHECKING:
    from ..encoders.base import Encoder

PLAIN = -1  # the number of the view that is not augmented


def what_decides_rows(encoder: Encoder) -> list[str]:
    """Return what of an encoder decides the row of a photo."""
    return [encoder.fingerprint, encoder.preprocessing, encoder.precision]


def view_key(content: str, view: int, seed: int) -> bytes:
    """Return the key of one view of an image; the plain one depends on no seed."""
    return row_key(content, view, seed if view != PLAIN else "")


class Kept(NamedTuple):
    """The rows of n images."""

    x: np.ndarray
    """(n, d)"""
    views: np.ndarray | None
    """(n, v, d)"""
    tokens: np.ndarray | None
    """(n, t, e)"""


class ImageCache:
    """The rows that one encoder made of images.

    Args:
        views: augmented views of each image that are wanted, made with ``seed``.
        tokens: whether the features before pooling are wanted.
    """

    def __init__(self, encoder: Encoder, views: int, seed: int, tokens: bool) -> None:
        key = [READING_VERSION, *what_decides_rows(encoder)]
        name = f"{folder_name(encoder.id)}-{hash_value(key)[:16]}"
        self.folder = cache_folder("features", name)
        self.views, self.seed = range(views), seed
        self.rows = RowStore(self.folder / "rows", (encoder.dim,), np.float32)
        shape = _token_shape(encoder) if tokens else ()
        self.maps = RowStore(self.folder / "tokens", shape, np.float16) if tokens else None

    def key(self, content: str, view: int = PLAIN) -> bytes:
        """Return the key of a view of an image."""
        return view_key(content, view, self.seed)

    def lacks(self, content: str) -> tuple[list[int], bool]:
        """Return which views of an image are not here, and whether its tokens are not."""
        views = [view for view in (PLAIN, *self.views) if self.key(content, view) not in self.rows]
        return views, self.maps is not None and self.key(content) not in self.maps

    def gather(self, contents: Sequence[str]) -> Kept:
        """Return the rows of images.

        Raises:
            KeyError: one is not here, or its shard turned out to be damaged.
        """
        plain = [self.key(content) for content in contents]
        views = [self.key(content, view) for content in contents for view in self.views]
        x = self.rows.gather(plain)
        seen = self.rows.gather(views).reshape(len(x), len(self.views), -1) if views else None
        return Kept(x, seen, self.maps.gather(plain) if self.maps is not None else None)

    def refresh(self) -> None:
        """See what other processes wrote, and lose what was damaged."""
        self.rows.refresh()
        if self.maps is not None:
            self.maps.refresh()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the cache for writing; at the end small shards are joined."""
        with self.rows.writing():
            if self.maps is not None:
                self.maps.refresh()
            yield
            self.rows.merge()


def _token_shape(encoder: Encoder) -> tuple[int, int]:
    pixels = encoder.transform(Image.new("RGB", (32, 32)))[None]
    _, count, width = encoder.image_tokens(pixels).shape
    return count, width

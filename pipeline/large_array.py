"""Arrays that may be larger than memory: those live in a file that has no name.

The file is gone with the array. The system keeps its pages in memory as long as nobody needs the
room, so that an array that fits is as fast as any.
"""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .files import cache_folder, writing

_IN_MEMORY = 1 << 30  # bytes


def large_zeros(
    shape: tuple[int, ...], dtype: Any = np.float32, folder: Path | None = None
) -> np.ndarray:
    """Return zeros of a shape: in memory up to a gigabyte, else in an unnamed file.

    Args:
        folder: where the file lies; that of the caches by default.

    Raises:
        UserError: the disk has no room for it, or the folder cannot be written to.

    >>> large_zeros((2, 3)).shape
    (2, 3)
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < _IN_MEMORY:
        return np.zeros(shape, kind)
    place = folder or cache_folder()
    with writing(place), tempfile.TemporaryFile(dir=place) as unnamed:
        if hasattr(os, "posix_fallocate"):  # a full disk would else end the process at some page
            os.posix_fallocate(unnamed.fileno(), 0, size)
        return np.memmap(unnamed, dtype=kind, mode="w+", shape=shape)

"""An image tower compiled for batches of one size, where that measures faster than without.

b images in a batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ..progress import step

Read = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
_LEAST = 16  # images: smaller batches are not worth minutes of compiling
_RUNS = 3


class CompiledTower:
    """What reads pixels (b, 3, h, w), compiled at the first batch of some size if that is faster.

    A last, shorter batch is filled up with zeros, so that the tower is compiled once. Values are
    those of the tower itself up to rounding.

    Args:
        read: from pixels to tensors of b rows. always: compiled, whether it is faster or not.
    """

    def __init__(self, read: Read, always: bool = False) -> None:
        self._plain, self._always = read, always
        self._compiled: Read | None = None
        self._size = 0

    def __call__(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        count = len(pixels)
        if not self._size and count >= _LEAST:
            self._size = count
            self._compiled = self._choose(pixels)
        if self._compiled is None or not self._size // 2 < count <= self._size:
            return self._plain(pixels)
        whole = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, self._size - count))
        return tuple(rows[:count] for rows in self._compiled(whole))

    def _choose(self, pixels: torch.Tensor) -> Read | None:
        """Return the compiled tower, or nothing where it is slower or cannot be made."""
        compiled: Any = torch.compile(self._plain, dynamic=False)
        since = time.monotonic()
        try:
            compiled(pixels)
        except Exception as error:  # no compiler, or none of this kind of module
            reason = " ".join(str(error).split())[:200]
            step(f"The image tower cannot be compiled here and runs as it is: {reason}")
            return None
        seconds = time.monotonic() - since
        plain, fast = _seconds(self._plain, pixels), _seconds(compiled, pixels)
        better = self._always or fast < plain
        step(
            f"The image tower was compiled in {seconds:.0f} s: {len(pixels) / fast:,.0f} images/s, "
            f"as it is {len(pixels) / plain:,.0f}; it runs {'compiled' if better else 'as it is'}."
        )
        return compiled if better else None


def _seconds(read: Read, pixels: torch.Tensor) -> float:
    """Return the shortest time of a few runs."""
    found = []
    for _ in range(_RUNS):
        _finish(pixels.device)
        since = time.perf_counter()
        read(pixels)
        _finish(pixels.device)
        found.append(time.perf_counter() - since)
    return min(found)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

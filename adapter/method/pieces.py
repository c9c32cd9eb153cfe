"""Scores of images for very many classes, a few images at a time: all at once would not fit.

n images, c classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

MOST = 1 << 27  # scores (n, c) that are held at once: half a gigabyte
_BLOCK = 1 << 25  # of those that are computed again each time they are used


def rows_that_fit(classes: int) -> int:
    """Return how many images may be scored at once.

    >>> rows_that_fit(1000), rows_that_fit(100_000)
    (134217, 1342)
    """
    return max(1, MOST // max(classes, 1))


def pieces(x: Tensor, classes: int) -> tuple[Tensor, ...]:
    """Split images x (n, d) into pieces whose scores fit; few images, or few classes, stay one."""
    return x.split(rows_that_fit(classes))


def spread_rows(count: int, classes: int) -> Tensor:
    """Return the numbers of as many of ``count`` images as may be scored at once, evenly spaced."""
    most = rows_that_fit(classes)
    return torch.arange(count) if count <= most else torch.linspace(0, count - 1, most).long()


@dataclass(frozen=True)
class ZeroShotLogits:
    """``factor·x·tᵀ`` (n, c): kept where it fits, else computed for a few images at a time.

    Attributes:
        x: (n, d). t: (c, d). kept: (n, c), or None where it does not fit.
    """

    x: Tensor
    t: Tensor
    factor: float
    kept: Tensor | None

    @classmethod
    def of(cls, x: Tensor, t: Tensor, factor: float) -> ZeroShotLogits:
        """Take images (n, d), texts (c, d) and the factor of their cosines."""
        fits = len(x) <= rows_that_fit(len(t))
        return cls(x, t, factor, factor * x @ t.T if fits else None)

    def __getitem__(self, rows: Tensor) -> ZeroShotLogits:
        """Return those of some images: a mask (n,), or numbers."""
        if self.kept is None:
            return ZeroShotLogits.of(self.x[rows], self.t, self.factor)
        return ZeroShotLogits(self.x[rows], self.t, self.factor, self.kept[rows])


def blocks(logits: Tensor | ZeroShotLogits) -> Iterator[tuple[slice, Tensor]]:
    """Yield which images, and their logits (b, c): all at once where they are kept.

    >>> x, t = torch.eye(3), torch.eye(3)[:2]
    >>> [(rows.stop, block.tolist()) for rows, block in blocks(ZeroShotLogits(x, t, 2.0, None))]
    [(3, [[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]])]
    """
    kept = logits if isinstance(logits, Tensor) else logits.kept
    if kept is not None:
        yield slice(0, len(kept)), kept
        return
    assert isinstance(logits, ZeroShotLogits)
    step = max(1, _BLOCK // max(len(logits.t), 1))
    for start in range(0, len(logits.x), step):
        rows = slice(start, min(start + step, len(logits.x)))
        yield rows, logits.factor * logits.x[rows] @ logits.t.T

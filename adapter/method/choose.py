"""How hyper-parameters are chosen: by validation images, else by a fixed rule. Never by test ones.

Where there are no validation images, methods in closed form can be validated by folds of their own
training shots; the others keep the fixed value of their paper or reference implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

T = TypeVar("T")


def choose(
    candidates: Sequence[T], logits: Callable[[T], Tensor], y: Tensor, fallback: T
) -> tuple[T, float]:
    """Return the candidate with the highest accuracy, among equals the lowest cross-entropy.

    Args:
        candidates: what to choose from.
        logits: gives the logits (n, c) of the validation images for a candidate.
        y: (n,) their labels.
        fallback: returned when there are no validation images.

    Returns:
        The choice and its accuracy in percent (``nan`` for the fallback).
    """
    if not len(y):
        return fallback, float("nan")
    best: tuple[float, float] | None = None
    chosen = fallback
    for candidate in candidates:
        values = logits(candidate)
        rank = (
            float((values.argmax(1) == y).float().mean() * 100),
            -float(F.cross_entropy(values, y)),
        )
        if best is None or rank > best:
            best, chosen = rank, candidate
    assert best is not None
    return chosen, best[0]


def product(*axes: Sequence[float]) -> list[tuple[float, ...]]:
    """Return all combinations, the last axis running fastest."""
    grid = torch.cartesian_prod(*[torch.tensor(list(axis), dtype=torch.float64) for axis in axes])
    return [tuple(row) for row in grid.reshape(-1, len(axes)).tolist()]

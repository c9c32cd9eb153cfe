"""Votes of similar training images, which Tip-Adapter and APE add to zero-shot CLIP.

b images, n training images, c classes, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cache_logits(
    x: Tensor, keys: Tensor, y: Tensor, classes: int, beta: float, values: Tensor | None = None
) -> Tensor:
    """Return ``exp(−β(1 − x·keys)) · (values ⊙ one-hot)`` (b, c): votes for the keys' classes.

    Args:
        x: (b, d). keys: (n, d). y: (n,) their labels. classes: c. values: (n,), 1 by default.
    """
    return votes_of((x @ keys.T).T - 1.0, y, classes, beta, values)


def votes_of(
    apart: Tensor, y: Tensor, classes: int, beta: float, values: Tensor | None = None
) -> Tensor:
    """Return the same votes (b, c) from ``apart`` (n, b), the similarities minus 1."""
    affinity = torch.exp(beta * apart)
    if values is not None:
        affinity = values[:, None] * affinity
    return apart.new_zeros(classes, apart.shape[1]).index_add(0, y, affinity).T


def grid(highest: float, steps: int, lowest: float = 0.1) -> list[float]:
    """Return ``steps`` values from ``lowest`` up, equally far apart, that end below ``highest``.

    The grid of Tip-Adapter's code and all that follow it.

    >>> grid(7, 3)
    [0.1, 2.4, 4.7]
    """
    return [round(lowest + i * (highest - lowest) / steps, 6) for i in range(steps)]


def thinned(values: list[float], most: int) -> list[float]:
    """Keep at most so many values, closer together where they are small.

    >>> thinned([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3)
    [1.0, 2.0, 6.0]
    """
    if len(values) <= most:
        return values
    places = {round((len(values) - 1) * (i / (most - 1)) ** 2) for i in range(most)}
    return [values[i] for i in sorted(places)]

"""The choice of a weight α and other settings of ``zero-shot + α·votes`` on validation images.

For one image the right class wins between two values of α, so a whole range of them is counted at
the price of one. v validation images, c classes, a weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

T = TypeVar("T")
Votes = Callable[[T], Tensor]

_ROWS = 512  # images at once
_TIED = 256  # settings of equal accuracy that are told apart by cross-entropy


def right_counts(start: Tensor, votes: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Return (a,): how many images ``start + α·votes`` gets right for each α of ``weights``.

    Args:
        start, votes: (v, c). y: (v,) labels. weights: (a,) rising, above 0.

    >>> start, votes = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    >>> right_counts(start, votes, torch.tensor([1]), torch.tensor([0.4, 0.6])).tolist()
    [0, 1]
    """
    own = y[:, None]
    ahead, rise = start.gather(1, own) - start, votes.gather(1, own) - votes
    bound = -ahead / rise
    low = torch.where(rise > 0, bound, -torch.inf).amax(1)
    high = torch.where(rise < 0, bound, torch.inf).amin(1)
    low = torch.where(((rise == 0) & (ahead < 0)).any(1), torch.inf, low)
    first = torch.searchsorted(weights, low.contiguous())
    last = torch.searchsorted(weights, high.contiguous(), right=True)
    some = first < last
    change = torch.zeros(len(weights) + 1, dtype=torch.long, device=y.device)
    one = torch.ones_like(y[some])
    change.index_add_(0, first[some], one)
    change.index_add_(0, last[some], -one)
    return change.cumsum(0)[:-1]


def choose_mixture(
    candidates: Sequence[T],
    weights: Sequence[float],
    start: Tensor,
    votes: Callable[[slice], Votes[T]],
    y: Tensor,
    fallback: tuple[T, float],
) -> tuple[T, float, float]:
    """Return the candidate and the weight with the highest accuracy on validation images.

    Among equals the lowest cross-entropy wins, as everywhere here.

    Args:
        candidates: other settings. weights: of the votes, rising.
        start: (v, c) zero-shot logits. y: (v,) labels.
        votes: for a range of images gives a function from a candidate to their votes (·, c).
        fallback: returned where there are no validation images.

    Returns:
        The candidate, the weight, and the accuracy in percent (``nan`` for the fallback).
    """
    if not len(y):
        return *fallback, float("nan")
    grid = torch.tensor(list(weights), dtype=start.dtype, device=start.device)
    parts = [slice(i, i + _ROWS) for i in range(0, len(y), _ROWS)]
    right = torch.zeros(len(candidates), len(weights), dtype=torch.long, device=y.device)
    for part in parts:
        of = votes(part)
        for i, candidate in enumerate(candidates):
            right[i] += right_counts(start[part], of(candidate), y[part], grid)
    best = int(right.max())
    tied = (right == best).nonzero()
    if len(tied) > 1:
        tied = _spread(tied, _TIED)
        loss = torch.zeros(len(tied), dtype=torch.float64, device=y.device)
        for part in parts:
            of, known = votes(part), -1
            values = start[part]
            for j, (i, k) in enumerate(tied.tolist()):
                if i != known:
                    values, known = of(candidates[i]), i
                logits = start[part] + grid[k] * values
                loss[j] += F.cross_entropy(logits, y[part], reduction="sum").double()
        tied = tied[loss.argmin()][None]
    i, k = tied[0].tolist()
    return candidates[i], float(weights[k]), 100 * best / len(y)


def _spread(rows: Tensor, most: int) -> Tensor:
    """Keep at most so many rows, evenly spread, the first and the last among them."""
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most, device=rows.device).round().long()]

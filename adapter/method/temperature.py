"""How sharp logits should be: one factor with the least cross-entropy, few images or many.

n images, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Parts = Sequence[tuple[Tensor, Tensor]]  # (logits, labels) of several sets of images
_PRIOR_DEVIATION = 0.5  # of log temperature
_LOW, _HIGH = math.log(0.02), math.log(20.0)
_CLOSE = 1e-3  # of log temperature


def cross_entropies(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each image (n,)."""
    return logits.logsumexp(1) - logits.gather(1, y[:, None])[:, 0]


def best_temperature(parts: Parts) -> float:
    """Return the factor of the logits with the least cross-entropy, by Newton steps on its log.

    A few images must not make it extreme: its logarithm has a normal prior of deviation one half.
    Cross-entropy is convex in the factor; a bracket keeps the steps where it is not in the log.
    """
    if not sum(len(y) for _, y in parts):
        return 1.0
    log, low, high = 0.0, _LOW, _HIGH
    for _ in range(30):
        slope, curvature = _derivatives(parts, log)
        low, high = (low, log) if slope > 0 else (log, high)
        new = log - slope / curvature if curvature > 0 else low - 1
        if not low < new < high:
            new = (low + high) / 2
        if abs(new - log) < _CLOSE:
            return math.exp(new)
        log = new
    return math.exp(log)


def _derivatives(parts: Parts, log: float) -> tuple[float, float]:
    """Return the first two derivatives of the loss by the log of the factor."""
    factor, pull, spread = math.exp(log), 0.0, 0.0
    for logits, y in parts:
        weighted = (logits * factor).softmax(1).mul_(logits)
        mean = weighted.sum(1)
        pull += float((mean - logits.gather(1, y[:, None])[:, 0]).sum())
        spread += float((weighted.mul_(logits).sum(1) - mean.square()).clamp_min_(0).sum())
    prior = _PRIOR_DEVIATION**-2
    slope = factor * pull
    return slope + prior * log, slope + factor**2 * spread + prior


def losses(parts: Parts) -> Tensor:
    """Return the cross-entropy of each image (n,) at the best temperature of all."""
    temperature = best_temperature(parts)
    return torch.cat([cross_entropies(a * temperature, b) for a, b in parts])

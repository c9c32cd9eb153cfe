"""How much Gaussian classes may say beside zero-shot CLIP, by folds of the photos they come from.

n images, c classes, d embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .class_statistics import ClassStatistics
from .discriminant import folds
from .temperature import best_temperature, cross_entropies

_FOLDS = 4
_WEIGHTS = torch.logspace(-2.5, 0.5, 19).tolist()
_UNJUDGED = 0.1  # where no photo can be held out: what pools of a few photos a class were given


def choose_gaussian_weight(x: Tensor, y: Tensor, t: Tensor, scale: float) -> tuple[float, float]:
    """Return weight and temperature with the least cross-entropy on folds of photos.

    Args:
        x: (n, d) photos. y: (n,) labels. t: (c, d) class texts. scale: s, the factor of cosines.
    """
    if int(torch.bincount(y, minlength=len(t)).max()) < 2:
        return _UNJUDGED, 1.0
    fold = folds(y, _FOLDS)
    scores = x.new_zeros(len(x), len(t))
    for part in range(_FOLDS):
        out = fold == part
        if out.any() and not out.all():
            found = ClassStatistics.of(x[~out], y[~out], len(t))
            scores[out] = found.discriminant(t)(x[out])
    plain = scale * x @ t.T
    best = (float("inf"), _UNJUDGED, 1.0)
    for weight in _WEIGHTS:
        logits = plain + weight * scores
        temperature = best_temperature([(logits, y)])
        loss = float(cross_entropies(temperature * logits, y).mean())
        best = min(best, (loss, weight, temperature))
    return best[1], best[2]

"""GDA (Wang et al. 2024): zero-shot CLIP plus a Gaussian classifier in closed form, no training."""

from __future__ import annotations

from ..classification_data import FewShot
from ..discriminant import fit_discriminant, out_of_fold_scores
from ..selection import choose
from .base import Baseline, Fitted, per_class

_ALPHAS = [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
_FOLDS, _FALLBACK = 4, 0.1


def gda(data: FewShot, seed: int) -> Fitted:
    """``s·x·w_i + α·(x·Σ⁻¹μ_i − ½ μ_iᵀΣ⁻¹μ_i)``; α by validation, else by folds of the shots."""
    c = len(data.w)
    term = fit_discriminant(data.x, data.y, c)
    if len(data.val_y):
        x, y, scores = data.val_x, data.val_y, term(data.val_x)
    elif data.shots >= 2:
        x, y = data.x, data.y
        scores = out_of_fold_scores(x, y, c, min(_FOLDS, data.shots))
    else:
        x, y, scores = data.x[:0], data.y[:0], data.x[:0]
    start = data.scale * x @ data.w.T
    alpha, score = choose(_ALPHAS, lambda a: start + a * scores, y, _FALLBACK)
    return per_class(
        data,
        lambda x: data.scale * x @ data.w.T + alpha * term(x),
        0,
        {"alpha": alpha, "validation accuracy": score},
    )


BASELINES = [
    Baseline(
        "GDA", gda, "Wang et al. 2024", "new classes stay at zero-shot CLIP", deterministic=True
    )
]

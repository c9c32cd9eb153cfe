"""GDA (Wang et al. 2024): zero-shot CLIP plus a Gaussian classifier in closed form, no training.

b images, n training images, c classes, d embedding width, k nearest images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..method.choose import choose
from ..method.discriminant import Discriminant, fit_discriminant, out_of_fold_scores
from ..method.problem import ClassSet, FewShot
from .base import Baseline, Fitted, per_class

_ALPHAS = [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
_FOLDS, _FALLBACK = 4, 0.1
_NEAREST, _COPIES = 64, 16  # of the reference code: main_base2new.py


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


def gda_nearest(data: FewShot, seed: int) -> Fitted:
    """GDA with classifiers of new classes from the training images nearest to their texts."""
    seen = gda(data, seed)

    def logits(x: Tensor, classes: ClassSet) -> Tensor:
        out = seen.logits(x, classes)
        new = classes.seen < 0
        if new.any():
            out[:, new] += seen.chosen["alpha"] * synthesise(data.x, classes.template[new])(x)
        return out

    return Fitted(logits, chosen=seen.chosen)


def synthesise(x: Tensor, w: Tensor) -> Discriminant:
    """Return the Gaussian classifier of classes without images, as the reference code builds it.

    The mean of a class is that of its k nearest images and 16 copies of its text; its precision is
    ``d·(S + tr(S)/(k−1)·I)⁻¹`` with the scatter S of those images about the text, averaged over
    classes.

    Args:
        x: (n, d) images of trained classes. w: (c, d) texts of the new ones.
    """
    x, w = x.double(), w.double()
    k, d = min(_NEAREST, len(x)), x.shape[1]
    nearest = x[(w @ x.T).topk(k, dim=1).indices]  # (c, k, d)
    mean = (nearest.sum(1) + _COPIES * w) / (k + _COPIES)
    eye = torch.eye(d, dtype=x.dtype, device=x.device)
    precision = torch.zeros_like(eye)
    for images, text in zip(nearest, w):
        apart = images - text
        t = apart.square().sum() / max(k - 1, 1)
        # the inverse of a matrix of rank k plus t·I, by the smaller of the two systems
        inner = torch.linalg.solve(
            t * torch.eye(k, dtype=x.dtype, device=x.device) + apart @ apart.T, apart
        )
        precision += d * (eye - apart.T @ inner) / t / len(w)
    everything = torch.cat([mean, x.mean(0, keepdim=True)])  # the average image last
    weight = everything @ precision
    bias = -0.5 * (weight * everything).sum(-1)
    return Discriminant((weight[:-1] - weight[-1]).float(), (bias[:-1] - bias[-1]).float())


BASELINES = [
    Baseline(
        "gda",
        "GDA",
        gda,
        "Wang et al. 2024",
        "new classes stay at zero-shot CLIP",
        deterministic=True,
    ),
    Baseline(
        "gda-nearest",
        "GDA, nearest images",
        gda_nearest,
        "Wang et al. 2024",
        "new classes from the 64 training images nearest to each of their texts",
        deterministic=True,
    ),
]

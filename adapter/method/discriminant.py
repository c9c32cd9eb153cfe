"""A Gaussian classifier in closed form: one mean a class, one covariance for all.

The estimator of Wang et al. 2024, "A Hard-to-Beat Baseline for Training-free CLIP-based
Adaptation" (Eqs. 4, 5 and 8). n images, c classes, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Discriminant:
    """Class scores ``x·Σ⁻¹μ_i − ½ μ_iᵀΣ⁻¹μ_i`` relative to those of the mean of all images.

    Relative scores are 0 for a class that looks like the average image, so they can stand beside
    scores of classes without images; the order among seen classes is that of the absolute ones.

    Attributes:
        weight: (c, d). bias: (c,).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return scores (b, c) for x (b, d)."""
        return x @ self.weight.T + self.bias


def fit_discriminant(x: Tensor, y: Tensor, classes: int) -> Discriminant:
    """Estimate means and the shrunk precision ``d·((n−1)Σ + tr(Σ)I)⁻¹`` (Kubokawa & Srivastava).

    Args:
        x: (n, d) features. y: (n,) labels, each class at least once. classes: c.
    """
    x = x.double()
    n, d = x.shape
    count = torch.bincount(y, minlength=classes).clamp_min(1)
    mean = x.new_zeros(classes, d).index_add_(0, y, x) / count[:, None]
    centred = x - mean[y]
    # centred within classes, so its mean is zero: this is its covariance
    scatter = centred.T @ centred
    trace = scatter.trace() / max(n - 1, 1)
    if trace <= 0:  # one image a class: no spread within classes, so distances are Euclidean
        trace = x.new_ones(())
    precision = scatter + trace * torch.eye(d, dtype=x.dtype, device=x.device)
    everything = torch.cat([mean, x.mean(0, keepdim=True)])  # (c + 1, d): the average image last
    weight = d * torch.linalg.solve(precision, everything.T).T
    bias = -0.5 * (weight * everything).sum(-1)
    return Discriminant((weight[:-1] - weight[-1]).float(), (bias[:-1] - bias[-1]).float())


def folds(y: Tensor, parts: int, seed: int = 0) -> Tensor:
    """Return a fold number (n,) per image, every class spread over the folds.

    The single image of a class gets -1: held out, it would leave its class with none.
    """
    generator = torch.Generator().manual_seed(seed)
    fold = torch.zeros_like(y)
    for label in y.unique():
        rows = (y == label).nonzero()[:, 0]
        if len(rows) < 2:
            fold[rows] = -1
            continue
        order = torch.randperm(len(rows), generator=generator).to(y.device)
        fold[rows[order]] = torch.arange(len(rows), device=y.device) % parts
    return fold


def out_of_fold_scores(x: Tensor, y: Tensor, classes: int, parts: int) -> Tensor:
    """Return the scores (n, c) of each image by a discriminant that did not see its fold.

    They are 0 for the single image of a class, so that it has no say in the weight of the scores.
    """
    fold = folds(y, parts)
    scores = x.new_zeros(len(x), classes)
    for part in range(parts):
        out = fold == part
        if out.any():
            scores[out] = fit_discriminant(x[~out], y[~out], classes)(x[out])
    return scores

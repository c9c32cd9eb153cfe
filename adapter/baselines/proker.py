"""ProKeR (Bendou et al. 2025): kernel ridge regression that starts at zero-shot CLIP.

``f(x) = x·w + k(x, X)(K/λ + I)⁻¹(Y − X·w)`` with ``k(x, z) = exp(−β(1 − x·z))`` and one-hot Y,
on plain cosines, as in the authors' code (a copy: omarnust/BReg-Adapter, trainers/proker.py). The
answer is in closed form. b images, n training images, v validation images, c classes, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method.choose import choose
from ..method.problem import FewShot
from .base import Baseline, Fitted, per_class
from .blocked_cholesky import solve_blocked
from .cache import thinned

# the ranges of all data sets in the authors' configuration: β from 0.01 to 10, λ from 0.001 to 10
_BETAS = [0.1, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0]
_LAMBDAS = torch.logspace(-3, 1, 25, dtype=torch.float64).tolist()
# the authors' β and λ by shots for data without validation images (they come from ImageNet)
_BY_SHOTS = {1: (3.0, 0.05), 2: (2.6, 0.05), 4: (1.5, 0.05), 8: (1.66, 0.07), 16: (1.7, 0.1)}
_DIRECT = 2048  # training images up to which the system is solved at once, in float64
_LANDMARKS = 1024  # training images that span the kernel while β and λ are chosen
_LARGE = 1_000_000  # validation logits from which on the grid is thinned
_ROWS = 2048


def kernel(a: Tensor, b: Tensor, beta: float) -> Tensor:
    """Return ``exp(−β(1 − a·b))`` (n, m) for unit a (n, d) and b (m, d)."""
    return (a @ b.T).sub_(1.0).mul_(beta).exp_()


def coefficients(x: Tensor, residual: Tensor, beta: float, ridge: float) -> Tensor:
    """Solve ``(K/λ + I) z = residual`` for z (n, c), in pieces where K is large.

    Args:
        x: (n, d). residual: (n, c) of the labels and zero-shot CLIP. beta, ridge: β and λ.
    """
    n = len(x)
    if n <= _DIRECT:
        x = x.double()
        system = kernel(x, x, beta) / ridge + torch.eye(n, dtype=x.dtype, device=x.device)
        return torch.linalg.solve(system, residual.double()).float()

    def column(rows: slice, columns: slice) -> Tensor:
        part = kernel(x[rows], x[columns], beta).div_(ridge)
        part[: columns.stop - columns.start].diagonal().add_(1.0)
        return part

    return solve_blocked(column, n, residual)


def fixed_rule(shots: int) -> tuple[float, float]:
    """Return the authors' β and λ for the nearest number of shots.

    >>> fixed_rule(3), fixed_rule(100)
    ((1.5, 0.05), (1.7, 0.1))
    """
    nearest = min(_BY_SHOTS, key=lambda known: (abs(math.log(known / shots)), -known))
    return _BY_SHOTS[nearest]


def proker(data: FewShot, seed: int) -> Fitted:
    """β and λ by validation images, else by the authors' rule. Scaled as zero-shot CLIP is."""
    residual = -data.x @ data.w.T
    residual[torch.arange(len(data.x), device=data.x.device), data.y] += 1.0
    (beta, ridge), score = _chosen(data, residual)
    z = coefficients(data.x, residual, beta, ridge)

    def logits(x: Tensor) -> Tensor:
        parts = [part @ data.w.T + kernel(part, data.x, beta) @ z for part in x.split(_ROWS)]
        return data.scale * torch.cat(parts)

    chosen = {"beta": beta, "lambda": ridge, "validation accuracy": score}
    return per_class(data, logits, 0, chosen)


def _chosen(data: FewShot, residual: Tensor) -> tuple[tuple[float, float], float]:
    """Choose β and λ with the kernel spanned by at most 1,024 images (Nyström)."""
    best = fixed_rule(data.shots), float("nan")
    if not len(data.val_y):
        return best
    large = len(data.val_y) * len(data.w) > _LARGE
    betas = thinned(_BETAS, 6) if large else _BETAS
    lambdas = _LAMBDAS[::2] if large else _LAMBDAS
    start, rank = data.val_x @ data.w.T, (-1.0, 0.0)
    for beta in betas:
        logits = _corrected(data, residual, beta, start)
        ridge, score = choose(lambdas, logits, data.val_y, best[0][1])
        own = score, -float(F.cross_entropy(logits(ridge), data.val_y))
        if own > rank:
            rank, best = own, ((beta, ridge), score)
    return best


def _corrected(
    data: FewShot, residual: Tensor, beta: float, start: Tensor
) -> Callable[[float], Tensor]:
    """Return the validation logits as a function of λ: ``start + V diag(λ/(g + λ)) T``.

    The eigenvalues g (m,) of the landmarks' kernel make every further λ cheap.
    """
    places = torch.linspace(0, len(data.x) - 1, min(_LANDMARKS, len(data.x)))
    marks = data.x[places.round().long().to(data.x.device)]
    inner = kernel(marks.double(), marks.double(), beta)
    inner.diagonal().add_(1e-8)
    root = torch.linalg.cholesky(inner)

    def features(x: Tensor) -> Tensor:
        parts = [kernel(part.double(), marks.double(), beta) for part in x.split(_ROWS)]
        return torch.cat(
            [torch.linalg.solve_triangular(root, part.T, upper=False).T.float() for part in parts]
        )

    train = features(data.x)
    gram = (train.T @ train).double()
    spectrum, basis = torch.linalg.eigh(gram)
    basis = basis.float()
    spectrum = spectrum.clamp_min(0).float()
    held, target = features(data.val_x) @ basis, basis.T @ (train.T @ residual)
    return lambda ridge: (
        data.scale * (start + held @ ((ridge / (spectrum + ridge))[:, None] * target))
    )


BASELINES = [
    Baseline(
        "proker", "ProKeR", proker, "Bendou et al. 2025", "without augmented copies of the shots",
        deterministic=True,
    )
]  # fmt: skip

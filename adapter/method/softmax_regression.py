"""Multinomial logistic regression with an offset and a ridge that knows which classes are alike.

One convex problem, solved by L-BFGS without a seed. n images, c classes, d features, r their rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Training features in the coordinates of their right singular vectors.

    Attributes:
        z: (n, r) rotated features. rotate: (d, r). energy: (r,) squared singular values.
    """

    z: Tensor
    rotate: Tensor
    energy: Tensor


def decompose(z: Tensor) -> Features:
    """Return features z (n, d) in the coordinates in which their scatter is diagonal."""
    if len(z) < z.shape[1]:
        energy, left = torch.linalg.eigh(z @ z.T)
        keep = energy > energy[-1] * 1e-6
        energy = energy[keep]
        rotate = (z.T @ left[:, keep]) * energy.rsqrt()
    else:
        energy, rotate = torch.linalg.eigh(z.T @ z)
        keep = energy > energy[-1] * 1e-6
        energy, rotate = energy[keep], rotate[:, keep]
    return Features(z @ rotate, rotate, energy)


@dataclass(frozen=True)
class Likeness:
    """Covariance ``C = a·I + b·K`` (c, c) of the classes' weights, by the eigenvectors of K.

    With ``K = T Tᵀ`` of centred class texts, weights drawn from C are ``W = B T + Δ``: a linear map
    from texts that all classes share, with variance b, and a displacement of each class, with
    variance a. A ridge is the inverse of a variance.

    Attributes:
        vectors: (c, k) eigenvectors, or None for the identity. values: (k,), those of C, positive.
    """

    vectors: Tensor | None
    values: Tensor

    def spread(self, v: Tensor) -> Tensor:
        """Return v (d, k) in the coordinates of the classes, (d, c)."""
        return v if self.vectors is None else v @ self.vectors.T

    def gather(self, w: Tensor) -> Tensor:
        """Return w (d, c) in the coordinates of the eigenvectors, (d, k)."""
        return w if self.vectors is None else w @ self.vectors


@dataclass(frozen=True)
class TextKernel:
    """Eigenvalues (c,) and eigenvectors (c, c) of ``T Tᵀ``."""

    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, texts: Tensor) -> TextKernel:
        """Decompose the Gram matrix of texts (c, d)."""
        values, vectors = torch.linalg.eigh((texts @ texts.T).double())
        return cls(values.clamp_min(0).to(texts), vectors.to(texts))

    def likeness(self, own: float, shared: float) -> Likeness:
        """Return C for the variances of displacements (a) and of the shared map (b)."""
        if not shared:
            return Likeness(None, torch.full_like(self.values, own))
        values = own + shared * self.values
        keep = values > values[-1] * 1e-6
        return Likeness(self.vectors[:, keep], values[keep])


def softmax_regression(
    features: Features,
    y: Tensor,
    offset: Tensor,
    like: Likeness,
    *,
    start: Tensor | None = None,
    iterations: int = 50,
    tolerance: float = 1e-3,
) -> Tensor:
    """Minimise ``Σ CE(offset + Z W, y) + ½ tr(W C⁻¹ Wᵀ)`` over W.

    L-BFGS runs in coordinates in which the Hessian is near the identity: singular vectors of Z,
    eigenvectors of C, each scaled by the curvature there.

    Args:
        features: of n images. y: (n,) labels. offset: (n, c) logits that stay. like: C.
        start: (r, c), where to begin; zero by default.
        iterations: at most.
        tolerance: stop when the gradient in those coordinates is shorter than this times √n, or
            when two steps gain less than a tenth of its square, of the value.

    Returns:
        W (r, c) in the coordinates of ``features``.
    """
    n, c = offset.shape
    z = features.z
    doubt = (1 - offset.softmax(1).square().sum(1)).mean().clamp_min(1e-2)
    curvature = (doubt / c) * features.energy[:, None] + 1.0 / like.values  # (r, k)
    scale = curvature.rsqrt()
    penalty = 1.0 / (like.values * curvature)
    rows = torch.arange(n, device=y.device)

    def value_and_gradient(v: Tensor) -> tuple[float, Tensor]:
        log_p = torch.addmm(offset, z, like.spread(v * scale)).log_softmax(1)
        pull = penalty * v
        loss = 0.5 * _dot(pull, v) - float(log_p[rows, y].sum())
        residual = log_p.exp_()
        residual[rows, y] -= 1
        return loss, pull.addcmul_(like.gather(z.T @ residual), scale)

    v = torch.zeros_like(scale) if start is None else like.gather(start) / scale
    v = lbfgs(value_and_gradient, v, iterations, tolerance * n**0.5, tolerance**2 / 10)
    return like.spread(v * scale)


def lbfgs(
    function: Callable[[Tensor], tuple[float, Tensor]],
    v: Tensor,
    iterations: int,
    tolerance: float,
    gain: float = 0.0,
    memory: int = 8,
) -> Tensor:
    """Minimise a convex function of a tensor, given as ``v -> (value, gradient)``."""
    value, gradient = function(v)
    steps: list[tuple[Tensor, Tensor, float]] = []
    small = 0
    for _ in range(iterations):
        if float(gradient.norm()) <= tolerance:
            break
        q, weights = gradient.clone(), []
        for s, t, rho in reversed(steps):
            a = rho * _dot(s, q)
            q.add_(t, alpha=-a)
            weights.append(a)
        if steps:
            s, t, rho = steps[-1]
            q *= 1.0 / (rho * _dot(t, t))
        for (s, t, rho), a in zip(steps, reversed(weights)):
            q.add_(s, alpha=a - rho * _dot(t, q))
        slope, size = _dot(gradient, q), 1.0
        while True:
            new = v.sub(q, alpha=size)
            new_value, new_gradient = function(new)
            if new_value <= value - 1e-4 * size * slope or size < 1e-4:
                break
            size /= 2
        s, t = new - v, new_gradient - gradient
        curve = _dot(s, t)
        if curve > 0:
            steps = [*steps[1 - memory :], (s, t, 1.0 / curve)]
        # one short step may be a poor direction, two in a row are the end
        small = small + 1 if value - new_value <= gain * abs(value) else 0
        v, value, gradient = new, new_value, new_gradient
        if small == 2:
            break
    return v


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.reshape(-1), b.reshape(-1)))

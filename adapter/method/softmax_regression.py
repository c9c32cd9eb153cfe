"""Multinomial logistic regression with an offset and a ridge that knows which classes are alike.

One convex problem, solved by L-BFGS without a seed. n images, c classes, d features, r their rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .pieces import ZeroShotLogits, blocks

_PAIRS = 8  # of earlier steps, that L-BFGS keeps
_HISTORY = 1 << 30  # bytes of them; with very many classes there are fewer
_NOTHING = 1e-10  # of the largest eigenvalue: what is left of rounding


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
        vectors: (c, k) eigenvectors, or None for the identity. values: (k,), those of C, positive;
            of the identity (1,). rest: the variance of every direction that no vector has, where
            there are such.
    """

    vectors: Tensor | None
    values: Tensor
    rest: float | None = None

    def spread(self, v: Tensor) -> Tensor:
        """Return v (d, k) in the coordinates of the classes, (d, c)."""
        return v if self.vectors is None else v @ self.vectors.T

    def gather(self, w: Tensor) -> Tensor:
        """Return w (d, c) in the coordinates of the eigenvectors, (d, k)."""
        return w if self.vectors is None else w @ self.vectors

    def times(self, w: Tensor, along: Tensor, rest: Tensor) -> Tensor:
        """Return w (d, c) times ``along`` (d, k) in the directions of vectors, ``rest`` elsewhere.

        With few vectors of many classes nothing larger than w is needed.
        """
        assert self.vectors is not None
        return (w * rest).addmm_((w @ self.vectors).mul_(along - rest), self.vectors.T)


@dataclass(frozen=True)
class TextKernel:
    """Eigenvalues (k,), ascending, and eigenvectors (c, k) of ``T Tᵀ``.

    With more texts than their width the others have eigenvalue zero, and are not needed.
    """

    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, texts: Tensor) -> TextKernel:
        """Decompose the Gram matrix of texts (c, d), or the smaller one of their columns."""
        c, d = texts.shape
        if c <= d:
            values, vectors = torch.linalg.eigh((texts @ texts.T).double())
            return cls(values.clamp_min(0).to(texts), vectors.to(texts))
        wide = texts.double()
        values, turn = torch.linalg.eigh(wide.T @ wide)
        keep = values > values[-1] * _NOTHING
        values, turn = values[keep], turn[:, keep]
        return cls(values.to(texts), (wide @ (turn * values.rsqrt())).to(texts))

    def likeness(self, own: float, shared: float) -> Likeness:
        """Return C for the variances of displacements (a) and of the shared map (b)."""
        if not shared or not len(self.values):
            return Likeness(None, self.vectors.new_full((1,), own))
        values = own + shared * self.values
        least = float(values[-1]) * 1e-6
        keep = values > least
        complete = len(self.vectors) == len(self.values)
        rest = None if complete or own <= least else own
        return Likeness(self.vectors[:, keep], values[keep], rest)


def softmax_regression(
    features: Features,
    y: Tensor,
    offset: Tensor | ZeroShotLogits,
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
    z, n = features.z, len(y)
    c = offset.shape[1] if isinstance(offset, Tensor) else len(offset.t)
    here = _Coordinates(like, _doubt(offset) / c * features.energy[:, None])

    def value_and_gradient(v: Tensor) -> tuple[float, Tensor]:
        w = here.weights(v)
        loss, slope = 0.0, w.new_zeros(0)
        for rows, logits in blocks(offset):
            of_rows, owners = z[rows], y[rows]
            numbers = torch.arange(len(owners), device=y.device)
            log_p = torch.addmm(logits, of_rows, w).log_softmax(1)
            loss -= float(log_p[numbers, owners].sum())
            residual = log_p.exp_()
            residual[numbers, owners] -= 1
            slope = slope.addmm_(of_rows.T, residual) if len(slope) else of_rows.T @ residual
        del w  # of very many classes it takes as much as all photos
        pull = here.penalty(v)
        return loss + 0.5 * _dot(pull, v), here.add(pull, slope)

    memory = max(2, min(_PAIRS, _HISTORY // (2 * len(z.T) * c * z.element_size())))
    best = lbfgs(
        value_and_gradient,
        here.zeros(c) if start is None else here.of(start),
        iterations,
        tolerance * n**0.5,
        tolerance**2 / 10,
        memory,
    )
    return here.weights(best)


def _doubt(offset: Tensor | ZeroShotLogits) -> Tensor:
    """Return the mean chance that two draws from an image's posterior differ: the curvature."""
    parts = [1 - logits.softmax(1).square_().sum(1) for _, logits in blocks(offset)]
    return torch.cat(parts).mean().clamp_min(1e-2)


class _Coordinates:
    """Where the Hessian is near the identity: each direction scaled by the curvature there."""

    def __init__(self, like: Likeness, data: Tensor) -> None:
        """Take C, and what the images add to the curvature (r, 1)."""
        self.like = like
        curvature = data + 1.0 / like.values  # (r, k)
        self.scale, self.ridge = curvature.rsqrt(), 1.0 / (like.values * curvature)
        if like.rest is not None:
            rest = data + 1.0 / like.rest  # (r, 1)
            self.rest, self.rest_ridge = rest.rsqrt(), 1.0 / (like.rest * rest)

    def zeros(self, classes: int) -> Tensor:
        """Return the origin: (r, k), or (r, c) where C is the identity or has a rest."""
        few = self.like.vectors is not None and self.like.rest is None
        return self.scale.new_zeros(len(self.scale), self.scale.shape[1] if few else classes)

    def of(self, w: Tensor) -> Tensor:
        """Return weights (r, c) in these coordinates."""
        if self.like.rest is None:
            return self.like.gather(w) / self.scale
        return self.like.times(w, 1.0 / self.scale, 1.0 / self.rest)

    def weights(self, v: Tensor) -> Tensor:
        """Return the weights (r, c) of v."""
        if self.like.rest is None:
            return self.like.spread(v * self.scale)
        return self.like.times(v, self.scale, self.rest)

    def penalty(self, v: Tensor) -> Tensor:
        """Return the gradient of the ridge at v."""
        if self.like.rest is None:
            return self.ridge * v
        return self.like.times(v, self.ridge, self.rest_ridge)

    def add(self, pull: Tensor, slope: Tensor) -> Tensor:
        """Add the gradient by weights (r, c) to one by coordinates, in place."""
        if self.like.rest is None:
            return pull.addcmul_(self.like.gather(slope), self.scale)
        return pull.add_(self.like.times(slope, self.scale, self.rest))


def lbfgs(
    function: Callable[[Tensor], tuple[float, Tensor]],
    v: Tensor,
    iterations: int,
    tolerance: float,
    gain: float = 0.0,
    memory: int = _PAIRS,
) -> Tensor:
    """Minimise a convex function of a tensor, given as ``v -> (value, gradient)``.

    ``v``, where it begins, is overwritten.
    """
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
        if memory < _PAIRS:
            steps = steps[1 - memory :]
        while True:
            new = v.sub(q, alpha=size)
            new_value, new_gradient = function(new)
            if new_value <= value - 1e-4 * size * slope or size < 1e-4:
                break
            size /= 2
        # in place: with very many classes memory is what these hold
        s, t = torch.sub(new, v, out=v), torch.sub(new_gradient, gradient, out=gradient)
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

"""One convex problem: weights of classes, and a map that they share, on top of zero-shot CLIP.

    logit = offset + (x − x̄)ᵀ A w_c            w_c = B (t_c − t̄) + δ_c

``A`` is the identity or ``Σ^(−½)`` of the spread within classes; a constant 1 stands beside the
``d`` features, so that classes and texts have a bias. Ridges are inverse variances of a
prior: ``own`` of δ, ``shared`` of B. Features and texts are scaled to mean squared length one, so
that a variance says how far a logit may move.

n images, c classes, d embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .pieces import ZeroShotLogits
from .softmax_regression import Features, TextKernel, decompose, softmax_regression

_ROUGH = 0.02  # tolerance while choosing from many images; few need care and cost little
_FEW = 500
_LESS = 0.01  # tolerance for many images, where the end of the descent is below their noise
_LARGE = 4000


@dataclass(frozen=True)
class Setting:
    """One convex problem: whether images are whitened, the variances of δ and of B."""

    whiten: bool
    own: float
    shared: float


@dataclass(frozen=True)
class Solution:
    """A solved problem, folded so that no centring and no whitening of images is left to do.

    Attributes:
        weight: (d, c) and bias: (c,) of all that a trained class has.
        shared: (d, d), or None, and shift: (d,): ``(x shared + shift)·(t − t̄)`` is what any class
            may have. mean_text: t̄ (d,).
    """

    weight: Tensor
    bias: Tensor
    shared: Tensor | None
    shift: Tensor
    mean_text: Tensor

    def seen(self, x: Tensor) -> Tensor:
        """Return what is added to zero-shot logits of the trained classes (b, c)."""
        return x @ self.weight + self.bias

    def new(self, x: Tensor, t: Tensor) -> Tensor:
        """Return what is added for any classes with texts t (c', d): (b, c')."""
        if self.shared is None:
            return x.new_zeros(len(x), len(t))
        return (x @ self.shared + self.shift) @ (t - self.mean_text).T


class ConvexProblem:
    """One training problem; solved at several settings, each starts where the last one ended."""

    def __init__(self, x: Tensor, y: Tensor, t: Tensor, offset: Tensor | ZeroShotLogits) -> None:
        """Take images (n, d), labels (n,), class texts (c, d) and logits that stay (n, c)."""
        self.x, self.y, self.t, self.offset = x, y, t, offset
        centred = t - t.mean(0)
        self.unit = centred.square().sum(1).mean().clamp_min(1e-12).rsqrt()
        self.texts = centred * self.unit
        self._kernel: TextKernel | None = None
        self._views: dict[bool, tuple[Tensor, Features]] = {}
        self._last: dict[bool, Tensor] = {}

    def solve(
        self,
        setting: Setting,
        tolerance: float = 3e-3,
        rough: bool = False,
        start: Solution | None = None,
    ) -> Solution:
        """Solve at one setting; roughly, if that is enough and saves time.

        ``start`` is a solution of other images, to begin at where none of these is known yet. It
        must not have seen images that judge this one.
        """
        if rough and len(self.x) > _FEW:
            tolerance = max(tolerance, _ROUGH)
        if len(self.x) > _LARGE:
            tolerance = max(tolerance, _LESS)
        if setting.whiten not in self._views:
            self._views[setting.whiten] = self._view(setting.whiten)
        matrix, features = self._views[setting.whiten]
        if self._kernel is None:
            self._kernel = TextKernel.of(self.texts)
        like = self._kernel.likeness(max(setting.own, 1e-3), setting.shared)
        mean = self.x.mean(0)
        first = self._last.get(setting.whiten)
        if first is None and start is not None:
            full = torch.cat([start.weight, (start.bias + mean @ start.weight)[None]])
            # columns are independent; torch's own choice of a driver has other bits each time
            first = torch.linalg.lstsq(matrix, full, driver="gels").solution
        weight = softmax_regression(
            features, self.y, self.offset, like, start=first, tolerance=tolerance
        )
        self._last[setting.whiten] = weight
        full = matrix @ weight  # (d + 1, c): the last row is of the constant feature
        shared, shift = None, torch.zeros_like(mean)
        if setting.shared and like.vectors is not None:
            # the mean of B given W: C⁻¹ takes the part that the texts explain
            explained = (like.gather(weight) / like.values) @ like.vectors.T
            whole = (setting.shared * self.unit) * (matrix @ (explained @ self.texts))
            shared, shift = whole[:-1], whole[-1] - mean @ whole[:-1]
        return Solution(full[:-1], full[-1] - mean @ full[:-1], shared, shift, self.t.mean(0))

    def _view(self, whiten: bool) -> tuple[Tensor, Features]:
        """Return the map from images to features (d + 1, r), and the features that it gives.

        A constant feature of the weight of all others lets texts and classes have a bias each.
        """
        centred = self.x - self.x.mean(0)
        d = centred.shape[1]
        matrix = whitening(self.x, self.y, self.t) if whiten else None
        z = centred if matrix is None else centred @ matrix
        unit = z.square().sum(1).mean().clamp_min(1e-12).rsqrt()
        features = decompose(torch.cat([z * unit, z.new_ones(len(z), 1)], 1))
        top = features.rotate[:d] if matrix is None else matrix @ features.rotate[:d]
        return torch.cat([top * unit, features.rotate[d:]]), features


def whitening(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Return ``(S + tr(S)/(n−1)·I)^(−½)`` (d, d) of the scatter S within classes.

    With fewer than two images a class the scatter is that about the class texts.
    """
    n, d = x.shape
    c = len(t)
    if n >= 2 * c:
        count = torch.bincount(y, minlength=c).clamp_min(1)
        apart = x - (x.new_zeros(c, d).index_add_(0, y, x) / count[:, None])[y]
    else:
        apart = x - t[y]
        apart = apart - apart.mean(0)
    ridge = (apart.square().sum() / max(n - 1, 1)).clamp_min(1e-12)
    found = decompose(apart)
    gain = (found.energy + ridge).rsqrt() - ridge.rsqrt()
    eye = torch.eye(d, dtype=x.dtype, device=x.device)
    return ridge.rsqrt() * eye + (found.rotate * gain) @ found.rotate.T

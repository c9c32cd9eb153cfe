"""What a Gaussian classifier needs to know of photos: counts, means and one scatter.

They add up, so classes and photos can join later and nothing is lost by forgetting the photos.
n images, c classes, d embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.errors import UserError
from .discriminant import Discriminant

PRIOR = 2.0  # photos that the text of a class is worth when its mean is estimated
_NAMES = ("count", "mean", "scatter")


@dataclass(frozen=True)
class ClassStatistics:
    """Sufficient statistics of Gaussian classes with one covariance.

    Attributes:
        count: (c,) photos of each class, in fractions where labels are uncertain.
        mean: (c, d), zero where there are none. scatter: (d, d), summed about the class means.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 1.0], [5.0, 5.0]])
        >>> s = ClassStatistics.of(x, torch.tensor([0, 0, 1]), classes=3)
        >>> s.count.tolist(), s.mean[0].tolist(), s.scatter[0, 0].item()
        ([2.0, 1.0, 0.0], [1.0, 1.0], 2.0)
    """

    count: Tensor
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, x: Tensor, labels: Tensor, classes: int = 0) -> ClassStatistics:
        """Count photos x (n, d) with labels (n,), or with uncertain ones (n, c) that add up to 1.

        Kept in double precision: a scatter from sums of squares loses half of the digits.
        """
        q = labels.double() if labels.ndim == 2 else F.one_hot(labels, classes).double()
        x = x.double()
        count = q.sum(0)
        mean = (q.T @ x) / count.clamp_min(1e-12)[:, None]
        # Σ q (x − μ)(x − μ)ᵀ; exact in this form because μ are the weighted means
        scatter = (x.T * q.sum(1)) @ x - (mean.T * count) @ mean
        return cls(count, mean, (scatter + scatter.T) / 2)

    def __len__(self) -> int:
        return len(self.count)

    def with_photos(self, other: ClassStatistics) -> ClassStatistics:
        """Return the statistics of the photos of both, which know the same classes."""
        count = self.count + other.count
        mean = (self.count[:, None] * self.mean + other.count[:, None] * other.mean) / (
            count.clamp_min(1e-12)[:, None]
        )
        apart = self.mean - other.mean
        weight = self.count * other.count / count.clamp_min(1e-12)
        between = (apart.T * weight) @ apart
        return ClassStatistics(count, mean, self.scatter + other.scatter + between)

    def with_classes(self, other: ClassStatistics) -> ClassStatistics:
        """Return the statistics of both, the classes of ``other`` behind those of this."""
        return ClassStatistics(
            torch.cat([self.count, other.count]),
            torch.cat([self.mean, other.mean]),
            self.scatter + other.scatter,
        )

    def expected_means(self, t: Tensor) -> Tensor:
        """Return what class texts t (c, d) say of the means: ``m + a·(t − t̄)``, (c, d).

        ``a`` is the least-squares slope over the classes that have photos, and not below zero.
        """
        total = self.count.sum().clamp_min(1e-12)
        middle = (self.count[:, None] * self.mean).sum(0) / total
        apart = t.double() - t.double().mean(0)
        weight = self.count[:, None]
        slope = (weight * apart * (self.mean - middle)).sum() / (
            (weight * apart.square()).sum().clamp_min(1e-12)
        )
        return middle + slope.clamp_min(0) * apart

    def discriminant(self, t: Tensor, prior: float = PRIOR) -> Discriminant:
        """Return the Gaussian classifier, means drawn towards what class texts t (c, d) say.

        ``μ_i = (n_i x̄_i + κ e_i) / (n_i + κ)`` with e of :meth:`expected_means` and κ ``prior``:
        the mean of a class with few photos, and that of a class with none, stays near its text.
        The covariance is shrunk as in Wang et al. 2024 (Eq. 8): ``d·(S + tr(S)/(n−1)·I)⁻¹``, with
        S the scatter about those means. Scores are relative to those of the average photo.
        """
        d = self.mean.shape[1]
        total = float(self.count.sum())
        expected = self.expected_means(t)
        share = self.count / (self.count + prior) if prior else torch.ones_like(self.count)
        means = torch.lerp(expected, self.mean, share[:, None])
        apart = self.mean - means
        scatter = self.scatter + (apart.T * self.count) @ apart
        trace = scatter.trace() / max(total - 1.0, 1.0)
        if trace <= 1e-12:  # all photos alike: distances are Euclidean
            trace = torch.ones_like(trace)
        middle = (self.count[:, None] * self.mean).sum(0) / max(total, 1e-12)
        points = torch.cat([means, middle[None]])
        precision = scatter + trace * torch.eye(d, dtype=scatter.dtype, device=scatter.device)
        weight = d * torch.linalg.solve(precision, points.T).T
        bias = -0.5 * (weight * points).sum(-1)
        return Discriminant((weight[:-1] - weight[-1]).float(), (bias[:-1] - bias[-1]).float())

    def tensors(self) -> dict[str, Tensor]:
        """Return what a run keeps, by name."""
        return {f"statistics.{name}": getattr(self, name) for name in _NAMES}

    @classmethod
    def load(cls, tensors: dict[str, Tensor]) -> ClassStatistics | None:
        """Return the statistics that a run kept, or None where it kept none.

        Raises:
            UserError: their shapes do not fit, or values are not finite.
        """
        found = [tensors.get(f"statistics.{name}") for name in _NAMES]
        count, mean, scatter = found
        if count is None or mean is None or scatter is None:
            return None
        fits = (
            count.ndim == 1
            and mean.ndim == 2
            and len(mean) == len(count)
            and scatter.shape == (mean.shape[1], mean.shape[1])
            and all(bool(torch.isfinite(part).all()) for part in (count, mean, scatter))
            and bool((count >= 0).all())
        )
        if not fits:
            raise UserError("The run's statistics of its classes are damaged.", "Train it again.")
        return cls(count.double(), mean.double(), scatter.double())

"""Learning from photos without labels: pseudo-labels, Gaussian classes, and when to believe them.

Class texts give each photo of a pool a pseudo-label, balanced by Sinkhorn's iterations to class
shares that are themselves estimated. Gaussian classes with one covariance are fitted to them and
stand beside the logits that made the labels. Whether that may be believed is asked of two halves
of the pool, and of no label: what is learned on one half has to explain the labels of the other,
and better than it would in a cloud of the same mean and covariance that has no classes in it.

n images, c classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .class_statistics import PRIOR, ClassStatistics
from .discriminant import Discriminant

_SINKHORN = 10
_EM = 30
_TEMPERATURES = 22
LEAST_PHOTOS = 8
LEAST_A_CLASS = 4.0


@dataclass(frozen=True)
class PseudoLabelChoices:
    """What is fixed; all of it was fixed on ImageNet classes and flowers (docs/labelfree.md).

    Attributes:
        prior: photos that a class text is worth (κ of :meth:`ClassStatistics.discriminant`).
        evenness: from the estimated class shares (0) to equal ones (1), in logarithms.
        margin: how much more of the entropy of one half's labels the other half must explain than
            in the cloud without classes.
        least: photos a class, on average, from which on a pool is used at all. The rule above sees
            that there are classes in a pool, not that the photos of each are too few for a mean.
    """

    prior: float = PRIOR
    evenness: float = 0.5
    margin: float = 0.06
    least: float = LEAST_A_CLASS


@dataclass(frozen=True)
class UnlabelledFit:
    """Gaussian classes of a pool.

    Attributes:
        statistics: of the pseudo-labelled pool. discriminant: the classifier.
        weight: λ of its scores beside the logits that made the labels; 0 where not trusted.
        shares: (c,) estimated class shares.
        explained: what one half explains of the other's labels, at most 1.
        by_chance: the same in the cloud without classes.
        agreement: share of photos that both halves call alike.
        trusted: whether the pool is used.
        a_class: photos a class, on average, those with labels included; no label is looked at.
        enough: whether these are as many as the choices ask for.
    """

    statistics: ClassStatistics
    discriminant: Discriminant
    weight: float
    shares: Tensor
    explained: float
    by_chance: float
    agreement: float
    trusted: bool
    a_class: float = float("inf")
    enough: bool = True


def class_shares(logits: Tensor, smoothing: float = 1.0) -> Tensor:
    """Return the shares (c,) under which the posteriors of logits (n, c) average to themselves.

    The EM iterations of Saerens et al. 2002, from equal shares, with ``smoothing`` photos added
    to every class.

    Example:
        >>> class_shares(torch.tensor([[9.0, 0.0]] * 6 + [[0.0, 9.0]] * 2)).round(decimals=1)
        tensor([0.7000, 0.3000])
    """
    n, c = logits.shape
    share = logits.new_full((c,), 1 / c)
    for _ in range(_EM):
        share = ((logits + share.log()).softmax(1).sum(0) + smoothing) / (n + smoothing * c)
    return share


def balanced_labels(logits: Tensor, shares: Tensor) -> Tensor:
    """Return pseudo-labels (n, c): posteriors whose classes have given shares of all photos.

    Sinkhorn's iterations scale the columns of ``softmax(logits)`` to n·shares, and rows to 1.
    """
    wanted = (shares.clamp_min(1e-9) * len(logits)).log()
    offset = torch.zeros_like(shares)
    for _ in range(_SINKHORN):
        offset = offset + wanted - (logits + offset).log_softmax(1).logsumexp(0)
    return (logits + offset).softmax(1)


def fit_unlabelled(
    x: Tensor,
    label: Callable[[Tensor], Tensor],
    t: Tensor,
    choices: PseudoLabelChoices | None = None,
    labelled: ClassStatistics | None = None,
    seed: int = 0,
) -> UnlabelledFit:
    """Fit Gaussian classes to a pool without labels, and say whether they can be trusted.

    Args:
        x: (n, d) photos of the pool, unit length. t: (c, d) class texts.
        label: gives the logits (n, c) that label photos: those of zero-shot CLIP, or of an adapter
            that was trained on some labels.
        choices: what is fixed.
        labelled: statistics of photos with labels, which join every fit.
        seed: of the halves, and of the cloud.
    """
    choices = choices or PseudoLabelChoices()
    halves = _Halves(x, label(x), t, choices.prior, labelled, seed)
    q, shares = halves.labels(choices.evenness)
    crossed, agreement = halves.crossed(q)
    weight, loss = _soft_temperature(crossed, q)
    explained, by_chance = _explained(q, loss), 1.0
    if len(x) >= LEAST_PHOTOS:
        cloud = classless(x, seed)
        control = _Halves(cloud, label(cloud), t, choices.prior, labelled, seed)
        p, _ = control.labels(choices.evenness)
        by_chance = _explained(p, _soft_temperature(control.crossed(p)[0], p)[1])
    a_class = (len(x) + (0 if labelled is None else float(labelled.count.sum()))) / len(t)
    enough = a_class >= choices.least
    trusted = enough and explained - by_chance >= choices.margin
    found = ClassStatistics.of(x, q)
    found = found if labelled is None else found.with_photos(labelled)
    return UnlabelledFit(
        statistics=found,
        discriminant=found.discriminant(t, choices.prior),
        weight=weight if trusted else 0.0,
        shares=shares,
        explained=explained,
        by_chance=by_chance,
        agreement=agreement,
        trusted=trusted,
        a_class=a_class,
        enough=enough,
    )


def classless(x: Tensor, seed: int) -> Tensor:
    """Return as many vectors (n, d) from one Gaussian with mean and covariance of x, unit length.

    A linear classifier learns the labels that texts give to such a cloud as well, although there
    is nothing in it to learn: this is how much of that is no evidence.
    """
    middle = x.mean(0)
    centred = (x - middle).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / max(len(x), 1))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.device)
    drawn = (noise.double() * values.clamp_min(0).sqrt()) @ vectors.T
    return F.normalize(middle + drawn.to(x), dim=-1)


def _explained(q: Tensor, loss: float) -> float:
    """Return the share of the entropy of labels (n, c) that a cross-entropy leaves explained."""
    if not len(q):
        return 0.0
    marginal = q.mean(0).clamp_min(1e-12)
    return 1 - loss / max(-float((marginal * marginal.log()).sum()), 1e-9)


class _Halves:
    """A pool in two halves, each of which judges the other."""

    def __init__(
        self, x: Tensor, logits: Tensor, t: Tensor, prior: float,
        labelled: ClassStatistics | None, seed: int,
    ) -> None:  # fmt: skip
        self.x, self.logits, self.t, self.prior, self.labelled = x, logits, t, prior, labelled
        generator = torch.Generator().manual_seed(seed)
        self.half = torch.randperm(len(x), generator=generator).to(x.device) % 2 == 0

    def labels(self, evenness: float) -> tuple[Tensor, Tensor]:
        """Return pseudo-labels (n, c) and the class shares (c,) that were estimated for them.

        First with equal shares; what the photos then say without the texts gives the shares.
        """
        c = self.logits.shape[1]
        equal = balanced_labels(self.logits, self.logits.new_full((c,), 1 / c))
        scores, _ = self.crossed(equal)
        shares = class_shares(_soft_temperature(scores, equal)[0] * scores)
        even = (shares.log() * (1 - evenness)).softmax(0)
        return balanced_labels(self.logits, even), shares

    def crossed(self, q: Tensor) -> tuple[Tensor, float]:
        """Return scores (n, c) by the half that has not seen a photo, and how often both agree."""
        scores = []
        for rows in (self.half, ~self.half):
            found = ClassStatistics.of(self.x[rows], q[rows])
            found = found if self.labelled is None else found.with_photos(self.labelled)
            scores.append(found.discriminant(self.t, self.prior)(self.x))
        first, second = scores
        alike = first.argmax(1) == second.argmax(1)
        agreement = float(alike.float().mean()) if len(alike) else 0.0
        return torch.where(self.half[:, None], second, first), agreement


def _soft_temperature(scores: Tensor, q: Tensor) -> tuple[float, float]:
    """Return the factor of scores (n, c) with the least cross-entropy to labels (n, c), and it."""
    best = (1.0, float("inf"))
    for factor in torch.logspace(-2.5, 1, _TEMPERATURES).tolist():
        loss = -float((q * (factor * scores).log_softmax(1)).sum(1).mean()) if len(q) else 0.0
        if loss < best[1]:
            best = (factor, loss)
    return best

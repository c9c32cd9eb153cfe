"""Learning from photos without labels: pseudo-labels, Gaussian classes, and when to believe them.

Class texts give each photo of a pool a pseudo-label, balanced by Sinkhorn's iterations to class
shares that are themselves estimated. Gaussian classes with one covariance are fitted to them and
stand beside the logits that made the labels. Whether that may be believed is asked of two halves
of the pool, and of no label: what is learned on one half has to explain the labels of the other.

n images, c classes, d embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .class_statistics import PRIOR, ClassStatistics
from .discriminant import Discriminant

_SINKHORN = 10
_EM = 30
_TEMPERATURES = 22
LEAST_PHOTOS = 8


@dataclass(frozen=True)
class PseudoLabelChoices:
    """What is fixed; all of it was fixed on ImageNet classes and flowers (docs/labelfree.md).

    Attributes:
        prior: photos that a class text is worth (κ of :meth:`ClassStatistics.discriminant`).
        evenness: from the estimated class shares (0) to equal ones (1), in logarithms.
        least: of the entropy of the labels of one half, what the other half must explain.
    """

    prior: float = PRIOR
    evenness: float = 0.5
    least: float = 1 / 3


@dataclass(frozen=True)
class UnlabelledFit:
    """Gaussian classes of a pool.

    Attributes:
        statistics: of the pseudo-labelled pool. discriminant: the classifier.
        weight: λ of its scores beside the logits that made the labels; 0 where not trusted.
        shares: (c,) estimated class shares.
        explained: what one half explains of the other's labels, at most 1.
        agreement: share of photos that both halves call alike.
        trusted: whether the pool is used.
    """

    statistics: ClassStatistics
    discriminant: Discriminant
    weight: float
    shares: Tensor
    explained: float
    agreement: float
    trusted: bool


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
    logits: Tensor,
    t: Tensor,
    choices: PseudoLabelChoices | None = None,
    labelled: ClassStatistics | None = None,
    seed: int = 0,
) -> UnlabelledFit:
    """Fit Gaussian classes to a pool without labels, and say whether they can be trusted.

    Args:
        x: (n, d) photos of the pool, unit length. t: (c, d) class texts.
        logits: (n, c) of what labels them: zero-shot CLIP, or an adapter trained on some labels.
        choices: what is fixed.
        labelled: statistics of photos with labels, which join every fit.
        seed: of the halves.
    """
    choices = choices or PseudoLabelChoices()
    n, c = logits.shape
    half = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(x.device) % 2 == 0
    equal = logits.new_full((c,), 1 / c)
    # first with equal shares; what the photos then say by themselves gives the shares
    first, _, _ = _crossed(x, balanced_labels(logits, equal), t, half, choices, labelled)
    factor, _ = _soft_temperature(first, balanced_labels(logits, equal))
    shares = class_shares(factor * first)
    even = (shares.log() * (1 - choices.evenness)).softmax(0)
    q = balanced_labels(logits, even)
    crossed, a, b = _crossed(x, q, t, half, choices, labelled)
    weight, loss = _soft_temperature(crossed, q)
    marginal = q.mean(0).clamp_min(1e-12)
    entropy = -float((marginal * marginal.log()).sum())
    explained = 1 - loss / max(entropy, 1e-9) if n >= LEAST_PHOTOS else 0.0
    trusted = explained >= choices.least
    found = ClassStatistics.of(x, q)
    found = found if labelled is None else found.with_photos(labelled)
    return UnlabelledFit(
        statistics=found,
        discriminant=found.discriminant(t, choices.prior),
        weight=weight if trusted else 0.0,
        shares=shares,
        explained=explained,
        agreement=float((a.argmax(1) == b.argmax(1)).float().mean()) if n else 0.0,
        trusted=trusted,
    )


def _crossed(
    x: Tensor, q: Tensor, t: Tensor, half: Tensor, choices: PseudoLabelChoices,
    labelled: ClassStatistics | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return scores (n, c) by the half that has not seen a photo, and those by either half."""
    scores = []
    for rows in (half, ~half):
        found = ClassStatistics.of(x[rows], q[rows])
        found = found if labelled is None else found.with_photos(labelled)
        scores.append(found.discriminant(t, choices.prior)(x))
    return torch.where(half[:, None], scores[1], scores[0]), scores[0], scores[1]


def _soft_temperature(scores: Tensor, q: Tensor) -> tuple[float, float]:
    """Return the factor of scores (n, c) with the least cross-entropy to labels (n, c), and it."""
    best = (1.0, float("inf"))
    for factor in torch.logspace(-2.5, 1, _TEMPERATURES).tolist():
        loss = -float((q * (factor * scores).log_softmax(1)).sum(1).mean()) if len(q) else 0.0
        if loss < best[1]:
            best = (factor, loss)
    return best

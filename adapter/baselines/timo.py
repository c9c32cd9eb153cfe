"""TIMO and TIMO-S (Li et al. 2025): descriptions weighted by images, images joined by descriptions.

The template and the prompts of a class are averaged by how well they fit its images (image-guided
text), and they stand beside the images as samples of a Gaussian classifier, each as long as it fits
(text-guided image). n images, v validation images, c classes, k prompts, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method.discriminant import Discriminant, folds
from ..method.problem import FewShot
from .base import Baseline, Fitted, per_class

T = TypeVar("T")

# of lyymuwu/TIMO: γ is 50, but 1 for ImageNet (100 for Flowers, which nothing here would tell)
_SHARPNESS, _SHARPNESS_LARGE, _LARGE = 50.0, 1.0, 500
_SHARPNESSES = [float(value) for value in range(5, 101, 5)]
_COUNTS = 10  # numbers of texts a class that TIMO-S tries, up to twice as many as there are
_RATIOS = [10.0**i for i in range(-4, 5)]  # of zero-shot and Gaussian scores
_RATIO = 1000.0  # where nothing can be held out: 100 to the 0.1 that GDA falls back on
_COPIES = 10  # the authors take ten augmented copies of every image
_FOLDS = 4


@dataclass
class Moments:
    """Sums (c, d) and counts (c,) by class, and the sum of squares (d, d), in float64."""

    sums: Tensor
    counts: Tensor
    second: Tensor

    @classmethod
    def none(cls, c: int, d: int, device: torch.device) -> Moments:
        """Return those of no samples."""
        zeros = torch.zeros(c + d + 1, max(c, d), dtype=torch.float64, device=device)
        return cls(zeros[:c, :d].clone(), zeros[-1, :c].clone(), zeros[c : c + d, :d].clone())

    def plus(self, x: Tensor, y: Tensor, copies: int = 1) -> Moments:
        """Return those with samples x (n, d) of classes y (n,) added so many times."""
        x = x.double()
        return Moments(
            self.sums.index_add(0, y, copies * x),
            self.counts + copies * torch.bincount(y, minlength=len(self.counts)),
            self.second + copies * x.T @ x,
        )

    def discriminant(self, centre: Tensor) -> Discriminant:
        """Return the classifier with precision ``d·(S + tr(S)/(n−1)·I)⁻¹`` (Wang et al. 2024).

        S is the scatter within classes. Scores are relative to those of ``centre`` (d,).
        """
        mean = self.sums / self.counts[:, None]
        scatter = self.second - self.sums.T @ mean
        d = len(scatter)
        trace = scatter.trace() / (self.counts.sum() - 1).clamp_min(1)
        trace = trace if trace > 1e-9 else trace.new_ones(())  # no spread: Euclidean distances
        precision = scatter + trace * torch.eye(d, dtype=scatter.dtype, device=scatter.device)
        everything = torch.cat([mean, centre.double()[None]])
        weight = d * torch.linalg.solve(precision, everything.T).T
        bias = -0.5 * (weight * everything).sum(-1)
        return Discriminant((weight[:-1] - weight[-1]).float(), (bias[:-1] - bias[-1]).float())


def fit_scores(prompts: Tensor, mask: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return (c, k): the cosine of each prompt and the mean image of its class.

    Args:
        prompts: (c, k, d) unit length. mask: (c, k). x: (n, d). y: (n,).
    """
    c, _, d = prompts.shape
    image = F.normalize(x.new_zeros(c, d).index_add_(0, y, x), dim=-1)
    return torch.einsum("ckd,cd->ck", prompts, image).masked_fill(~mask, -torch.inf)


def guided_text(prompts: Tensor, scores: Tensor, sharpness: float) -> Tensor:
    """Return (c, d), the prompts weighted by ``softmax(γ·scores/‖scores‖)``, unit length."""
    known = torch.where(scores.isfinite(), scores, 0.0)
    weight = (sharpness * F.normalize(known, dim=1)).masked_fill(~scores.isfinite(), -torch.inf)
    return F.normalize(torch.einsum("ck,ckd->cd", weight.softmax(1), prompts), dim=-1)


class _Trial:
    """One set of images to learn from, and images that were held out from it."""

    def __init__(self, data: FewShot, x: Tensor, y: Tensor, held_x: Tensor, held_y: Tensor) -> None:
        self.data, self.x, self.y, self.held_x, self.held_y = data, x, y, held_x, held_y
        self.scores = fit_scores(data.prompts, data.mask, x, y)
        c, _, d = data.prompts.shape
        self.images = Moments.none(c, d, x.device).plus(x, y, _COPIES)

    def text(self, sharpness: float) -> Tensor:
        """Image-guided text (c, d)."""
        return guided_text(self.data.prompts, self.scores, sharpness)

    def discriminants(self, counts: Sequence[int]) -> list[Discriminant]:
        """Return the classifier with so many texts a class, for rising numbers of them.

        The best texts come first, each scaled by its score; where a class has fewer, they start
        again from the best.
        """
        sorted_scores, order = self.scores.sort(dim=1, descending=True, stable=True)
        some, classes = self.data.mask.sum(1), torch.arange(len(order), device=order.device)
        moments, done, found = self.images, 0, []
        for count in counts:
            for position in range(done, count):
                at = position % some
                text = self.data.prompts[classes, order[classes, at]]
                moments = moments.plus(sorted_scores[classes, at][:, None] * text, classes)
            done = max(done, count)
            found.append(moments.discriminant(self.x.mean(0)))
        return found


def with_template(data: FewShot) -> FewShot:
    """Put the template first among the prompts of each class, as the authors' features do."""
    one = torch.ones_like(data.mask[:, :1])
    return replace(
        data,
        prompts=torch.cat([data.w[:, None], data.prompts], dim=1),
        mask=torch.cat([one, data.mask], dim=1),
    )


def _trials(data: FewShot) -> list[_Trial]:
    """Return what settings are chosen on: validation images, else folds of the shots, else none."""
    if len(data.val_y):
        return [_Trial(data, data.x, data.y, data.val_x, data.val_y)]
    if data.shots < 2:
        return []
    fold = folds(data.y, min(_FOLDS, data.shots))
    parts = [fold == part for part in fold.unique().tolist() if part >= 0]
    return [_Trial(data, data.x[~o], data.y[~o], data.x[o], data.y[o]) for o in parts]


def first_best(
    candidates: Sequence[T], logits: Callable[[T], Tensor], y: Tensor, fallback: T
) -> tuple[T, float]:
    """Return the first of the most accurate candidates and its accuracy, as the authors choose.

    Cross-entropy would not do among equals: the ratio of two scores changes their scale too.
    """
    if not len(y):
        return fallback, float("nan")
    scores = [float((logits(c).argmax(1) == y).float().mean() * 100) for c in candidates]
    best = max(range(len(scores)), key=scores.__getitem__)
    return candidates[best], scores[best]


def _fit(data: FewShot, sharpness: float | None, counts: Sequence[int]) -> Fitted:
    """Choose what is not given: γ on its own first, as the authors do, then count and ratio."""
    trials = _trials(data)
    y = torch.cat([trial.held_y for trial in trials]) if trials else data.y[:0]
    usual = _SHARPNESS_LARGE if len(data.w) >= _LARGE else _SHARPNESS
    if sharpness is None:
        sharpness, _ = first_best(
            _SHARPNESSES,
            lambda g: torch.cat([data.scale * t.held_x @ t.text(g).T for t in trials]),
            y,
            usual,
        )
    whole = _Trial(data, data.x, data.y, data.x[:0], data.y[:0])
    pairs = [(i, ratio) for i in range(len(counts)) for ratio in _RATIOS]
    held = [_held_scores(trial, sharpness, counts) for trial in trials]

    def logits(pair: tuple[int, float]) -> Tensor:
        return torch.cat([text + data.scale / pair[1] * gauss[pair[0]] for text, gauss in held])

    given = counts.index(data.prompts.shape[1]) if data.prompts.shape[1] in counts else 0
    (i, ratio), score = first_best(pairs, logits, y, (given, _RATIO))
    text, term = whole.text(sharpness), whole.discriminants([counts[i]])[0]
    chosen = {"gamma": sharpness, "texts": counts[i], "alpha": ratio, "validation accuracy": score}
    return per_class(
        data, lambda x: data.scale * (x @ text.T + term(x) / ratio), 0, chosen
    )  # fmt: skip


def _held_scores(
    trial: _Trial, sharpness: float, counts: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """Return text logits and Gaussian scores of held-out images."""
    text = trial.data.scale * trial.held_x @ trial.text(sharpness).T
    return text, [term(trial.held_x) for term in trial.discriminants(counts)]


def timo(data: FewShot, seed: int) -> Fitted:
    """Fixed γ and as many texts as there are; the ratio by validation, else by folds."""
    usual = _SHARPNESS_LARGE if len(data.w) >= _LARGE else _SHARPNESS
    return _fit(with_template(data), usual, [data.prompts.shape[1] + 1])


def timo_s(data: FewShot, seed: int) -> Fitted:
    """TIMO with γ and the number of texts chosen too."""
    data = with_template(data)
    k = data.prompts.shape[1]
    counts = sorted({max(1, int(v)) for v in torch.linspace(1, 2 * k, _COUNTS).tolist()} | {k})
    return _fit(data, None, counts)


_NOTE = "without augmentation: every image counts ten times instead"
BASELINES = [
    Baseline("timo", "TIMO", timo, "Li et al. 2025, AAAI", _NOTE, deterministic=True),
    Baseline("timo-s", "TIMO-S", timo_s, "Li et al. 2025, AAAI", _NOTE, deterministic=True),
]

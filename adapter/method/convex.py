"""The default recipe: two convex problems on top of zero-shot CLIP, and what chooses their ridges.

    seen class   T·(τs·x·t_c + λ·(x − x̄)ᵀ A w_c)            w_c = B (t_c − t̄) + δ_c
    new class    T'·(τs·x·t  + λ'·(x − x̄)ᵀ A' B' (t − t̄))   B' of such a problem, without its δ

``A`` is the identity or ``Σ^(−½)`` of the spread within classes; a constant 1 stands beside the
``d`` features, so that classes and texts have a bias. Ridges are inverse variances of a
prior: ``own`` of δ, ``shared`` of B. Features and texts are scaled to mean squared length one, so
that a variance says how far a logit may move. Everything is chosen by cross-entropy of images that
a fit has not seen: folds of the shots for seen classes, held-out classes for new ones.

n images, c classes, d embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from .recipe import ConvexRecipe
from .softmax_regression import Features, TextKernel, decompose, softmax_regression

Parts = Sequence[tuple[Tensor, Tensor]]  # (logits, labels) of several sets of images
_PRIOR_DEVIATION = 0.5  # of log temperature
_ROUGH = 0.01  # tolerance while choosing from many images; few need care and cost little
_FEW = 500
_WEIGHTS = (0.125, 0.25, 0.5, 1.0)  # of what is added to zero-shot CLIP


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


@dataclass
class ConvexFit:
    """Both problems solved, with their temperatures.

    Attributes:
        sharpness: τ of zero-shot CLIP. seen, new: solutions, or None where zero-shot CLIP stays.
        seen_weight, new_weight: λ and λ', of what they add to zero-shot CLIP.
        seen_temperature, new_temperature: T and T'. chosen: what was chosen, for the details.
    """

    sharpness: float
    seen: Solution | None
    new: Solution | None
    seen_weight: float
    new_weight: float
    seen_temperature: float
    new_temperature: float
    chosen: dict[str, Any] = field(default_factory=dict)


class ConvexProblem:
    """One training problem; solved at several settings, each starts where the last one ended."""

    def __init__(self, x: Tensor, y: Tensor, t: Tensor, offset: Tensor) -> None:
        """Take images (n, d), labels (n,), class texts (c, d) and logits that stay (n, c)."""
        self.x, self.y, self.t, self.offset = x, y, t, offset
        centred = t - t.mean(0)
        self.unit = centred.square().sum(1).mean().clamp_min(1e-12).rsqrt()
        self.texts = centred * self.unit
        self._kernel: TextKernel | None = None
        self._views: dict[bool, tuple[Tensor, Features]] = {}
        self._last: dict[bool, Tensor] = {}

    def solve(self, setting: Setting, tolerance: float = 3e-3, rough: bool = False) -> Solution:
        """Solve at one setting; roughly, if that is enough and saves time."""
        if rough and len(self.x) > _FEW:
            tolerance = max(tolerance, _ROUGH)
        if setting.whiten not in self._views:
            self._views[setting.whiten] = self._view(setting.whiten)
        matrix, features = self._views[setting.whiten]
        if self._kernel is None:
            self._kernel = TextKernel.of(self.texts)
        like = self._kernel.likeness(max(setting.own, 1e-3), setting.shared)
        weight = softmax_regression(
            features, self.y, self.offset, like,
            start=self._last.get(setting.whiten), tolerance=tolerance,
        )  # fmt: skip
        self._last[setting.whiten] = weight
        mean = self.x.mean(0)
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


def cross_entropies(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each image (n,)."""
    return logits.logsumexp(1) - logits.gather(1, y[:, None])[:, 0]


def best_temperature(parts: Parts) -> float:
    """Return the factor of the logits with the least cross-entropy, by golden section.

    A few images must not make it extreme: its logarithm has a normal prior of deviation one half.
    """
    if not sum(len(y) for _, y in parts):
        return 1.0

    def loss(log: float) -> float:
        prior = 0.5 * (log / _PRIOR_DEVIATION) ** 2
        return prior + sum(float(cross_entropies(a * math.exp(log), y).sum()) for a, y in parts)

    low, high, share = math.log(0.02), math.log(20.0), (math.sqrt(5) - 1) / 2
    for _ in range(16):
        left, right = high - share * (high - low), low + share * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def fit_convex(
    x: Tensor,
    y: Tensor,
    t: Tensor,
    scale: float,
    choices: ConvexRecipe,
    val_x: Tensor | None = None,
    val_y: Tensor | None = None,
    seed: int = 0,
) -> ConvexFit:
    """Choose and solve both problems.

    Args:
        x: (n, d) images of unit length. y: (n,) labels. t: (c, d) class texts of unit length.
        scale: s, CLIP's factor of cosines.
        choices: what is chosen from. Turned off parts are zero in their lists.
        val_x, val_y: validation images of the same classes, if there are any.
        seed: of the folds.
    """
    val_x = x[:0] if val_x is None else val_x
    val_y = y[:0] if val_y is None else val_y
    plain = scale * x @ t.T
    sharpness = best_temperature([(plain, y), (scale * val_x @ t.T, val_y)])
    factor = sharpness * scale
    setting, weight, warm = _choose_seen(x, y, t, factor, choices, val_x, val_y, seed)
    new_setting, trust, cool = _choose_new(x, y, t, factor, choices, seed)
    problem = ConvexProblem(x, y, t, factor * x @ t.T)
    seen = problem.solve(setting) if weight and (setting.own or setting.shared) else None
    new = None if new_setting is None else problem.solve(new_setting)
    chosen = {
        "sharpness of zero-shot": sharpness,
        "seen": asdict(setting) | {"weight": weight, "temperature": warm},
        "new": (asdict(new_setting) if new_setting else {})
        | {"weight": trust, "temperature": cool},
    }
    return ConvexFit(sharpness, seen, new, weight, trust, warm, cool, chosen)


def _choose_seen(
    x: Tensor, y: Tensor, t: Tensor, factor: float, choices: ConvexRecipe,
    val_x: Tensor, val_y: Tensor, seed: int,
) -> tuple[Setting, float, float]:  # fmt: skip
    """Return the setting for seen classes, its weight and its temperature."""
    c = len(t)
    rank = rank_in_class(y, seed)
    splits = list(_photo_splits(rank, y, c, choices))
    held: list[tuple[ConvexProblem, Tensor, Tensor]] = []
    for train, test in splits:
        held.append((_problem(x[train], y[train], t, factor), x[test], y[test]))
    if len(val_y):
        few = rank < _per_class(c, choices)
        held.append((_problem(x[few], y[few], t, factor), val_x, val_y))
    if not held:
        return _unjudged(factor * x @ t.T, y, choices)

    plain = [(factor * test_x @ t.T, test_y) for _, test_x, test_y in held]

    def judge(setting: Setting) -> Parts:
        return [
            (zero_shot + problem.solve(setting, rough=True).seen(test_x), test_y)
            for (problem, test_x, _), (zero_shot, test_y) in zip(held, plain)
        ]

    found: dict[Setting, Parts] = {}
    start = choices.shared[len(choices.shared) // 2] if c >= 200 else choices.shared[0]
    owns = sorted(set(choices.own))
    for whiten in choices.whiten:
        near = owns
        if found:  # whitening moves the best variance by a step at most
            place = owns.index(min(found, key=lambda s: float(losses(found[s]).sum())).own)
            near = owns[max(place - 1, 0) : place + 2]
        for own in near:
            found[Setting(whiten, own, start)] = judge(Setting(whiten, own, start))
    best = min(found, key=lambda s: float(losses(found[s]).sum()))
    for shared in choices.shared:
        if shared != start:
            setting = Setting(best.whiten, best.own, shared)
            found[setting] = judge(setting)
    best = min(found, key=lambda s: float(losses(found[s]).sum()))
    moved = found[best]
    if int(rank.max()) >= _per_class(c, choices):  # all images now, since they set the temperature
        train = rank % choices.folds > 0 if choices.folds > 1 else rank > 0
        offset = factor * x[~train] @ t.T
        problem = _problem(x[train], y[train], t, factor)
        plain = [(offset, y[~train])]
        moved = [(offset + problem.solve(best, rough=True).seen(x[~train]), y[~train])]
    weight, mixed = trusted(plain, moved, torch.cat([b for _, b in plain]), c, choices.doubt)
    return best, weight, best_temperature(mixed)


def losses(parts: Parts) -> Tensor:
    """Return the cross-entropy of each image (n,) at the best temperature of all."""
    temperature = best_temperature(parts)
    return torch.cat([cross_entropies(a * temperature, b) for a, b in parts])


def trusted(
    plain: Parts, moved: Parts, owners: Tensor, classes: int, doubt: float
) -> tuple[float, Parts]:
    """Return the weight of what moves logits away from zero-shot CLIP, and the logits with it.

    Of a few weights the one with the largest gain in cross-entropy less ``doubt`` standard errors,
    over classes: a small step may be sure where the whole one is not. None is surely good: zero.

    Args:
        plain, moved: logits and labels of held-out images. owners: (n,) class of each image.
        classes: c.
    """
    stay = losses(plain)
    best, chosen, chosen_parts = 0.0, 0.0, plain
    for weight in _WEIGHTS:
        mixed = [(torch.lerp(a, b, weight), y) for (a, y), (b, _) in zip(plain, moved)]
        gains = stay.new_zeros(classes).index_add_(0, owners, stay - losses(mixed))
        sure = float(gains.sum()) - doubt * float(gains.std()) * math.sqrt(classes)
        if sure > best:
            best, chosen, chosen_parts = sure, weight, mixed
    return chosen, chosen_parts


def _unjudged(zero_shot: Tensor, y: Tensor, choices: ConvexRecipe) -> tuple[Setting, float, float]:
    """Return the same where nothing can be held out: one shot without validation.

    Images go the further from the texts, the less zero-shot CLIP (n, c) knows of their labels: a
    share of what guessing costs. The rule was fitted by eye to training images of four data sets.
    """
    guess = math.log(zero_shot.shape[1])
    ignorance = min(1.0, float(cross_entropies(zero_shot, y).mean()) / guess)
    setting = Setting(False, choices.single_own * ignorance, choices.single_shared)
    return setting, 1.0, max(1.0, 0.85 + ignorance)


def _choose_new(
    x: Tensor, y: Tensor, t: Tensor, factor: float, choices: ConvexRecipe, seed: int
) -> tuple[Setting | None, float, float]:
    """Return the setting for new classes (None for zero-shot CLIP), its weight and temperature."""
    c = len(t)
    if choices.class_folds < 2 or c < 4 or not choices.new_shared:
        return None, 0.0, 1.0
    few = rank_in_class(y, seed) < _per_class(c, choices)
    x, y = x[few], y[few]
    settings = [
        Setting(whiten, choices.new_own, shared)
        for whiten in choices.new_whiten
        for shared in choices.new_shared
    ]
    plain: list[tuple[Tensor, Tensor]] = []
    moved: dict[Setting, list[tuple[Tensor, Tensor]]] = {setting: [] for setting in settings}
    owners = []
    generator = torch.Generator().manual_seed(seed)
    for part in torch.randperm(c, generator=generator).chunk(min(choices.class_folds, c // 2)):
        unknown = part.sort().values.to(y.device)
        known = torch.ones(c, dtype=torch.bool, device=y.device)
        known[unknown] = False
        ids = known.nonzero()[:, 0]
        out = ~known[y]
        problem = _problem(x[~out], torch.searchsorted(ids, y[~out]), t[ids], factor)
        test_x, test_y = x[out], torch.searchsorted(unknown, y[out])
        zero_shot = factor * test_x @ t[unknown].T
        plain.append((zero_shot, test_y))
        owners.append(y[out])
        for setting in settings:
            added = problem.solve(setting, rough=True).new(test_x, t[unknown])
            moved[setting].append((zero_shot + added, test_y))

    best = min(moved, key=lambda setting: float(losses(moved[setting]).sum()))
    weight, mixed = trusted(plain, moved[best], torch.cat(owners), c, choices.doubt)
    if not weight:
        return None, 0.0, 1.0
    # relative to that of zero-shot CLIP on the same few classes, whose own is known from all
    return best, weight, best_temperature(mixed) / best_temperature(plain)


def rank_in_class(y: Tensor, seed: int) -> Tensor:
    """Return a random rank (n,) of each image among those of its class, from 0."""
    generator = torch.Generator().manual_seed(seed)
    shuffle = torch.randperm(len(y), generator=generator).to(y.device)
    order = shuffle[torch.sort(y[shuffle], stable=True).indices]  # by class, random within
    count = torch.bincount(y)
    first = count.cumsum(0) - count
    rank = torch.empty_like(y)
    rank[order] = torch.arange(len(y), device=y.device) - first[y[order]]
    return rank


def _per_class(classes: int, choices: ConvexRecipe) -> int:
    """Return the images a class that choosing may train on."""
    return max(4, choices.images // classes)


def _photo_splits(
    rank: Tensor, y: Tensor, classes: int, choices: ConvexRecipe
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield masks of training and judged images; every class keeps images to train on."""
    limit = _per_class(classes, choices)
    use = rank < limit
    parts = min(choices.folds, int(rank.max()) + 1, limit)
    if parts < 2:
        return
    judged = 0
    for part in range(parts):
        # a class with a single image is always trained on
        test = use & (rank % parts == part) & ((rank > 0) | (torch.bincount(y)[y] > 1))
        yield use & ~test, test
        judged += int(test.sum())
        if judged >= choices.judged:
            return


def _problem(x: Tensor, y: Tensor, t: Tensor, factor: float) -> ConvexProblem:
    return ConvexProblem(x, y, t, factor * x @ t.T)

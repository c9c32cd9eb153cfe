"""The default recipe: two convex problems on top of zero-shot CLIP, and what chooses their ridges.

    seen class   T·(τs·x·t_c + (x − x̄)ᵀ A w_c)             w_c = Bᵀ(t_c − t̄) + δ_c
    new class    T'·(τs·x·t   + (x − x̄)ᵀ A' B' (t − t̄))    B' of the same problem, without δ

``A`` is the identity or ``Σ^(−½)`` of the spread within classes. Ridges are inverse variances of a
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


@dataclass(frozen=True)
class Setting:
    """One convex problem: whether images are whitened, the variances of δ and of B."""

    whiten: bool
    own: float
    shared: float


@dataclass(frozen=True)
class Solution:
    """A solved problem, folded so that no whitening is left to do.

    Attributes:
        mean: x̄ (d,). weight: (d, c), of ``x − x̄``: all that a seen class has of its own.
        shared: (d, d) or None: ``(x − x̄)ᵀ shared (t − t̄)`` is what any class may have.
        mean_text: t̄ (d,).
    """

    mean: Tensor
    weight: Tensor
    shared: Tensor | None
    mean_text: Tensor

    def seen(self, x: Tensor) -> Tensor:
        """Return what is added to zero-shot logits of the trained classes (b, c)."""
        return (x - self.mean) @ self.weight

    def new(self, x: Tensor, t: Tensor) -> Tensor:
        """Return what is added for any classes with texts t (c', d): (b, c')."""
        if self.shared is None:
            return x.new_zeros(len(x), len(t))
        return (x - self.mean) @ self.shared @ (t - self.mean_text).T


@dataclass
class ConvexFit:
    """Both problems solved, with their temperatures.

    Attributes:
        sharpness: τ of zero-shot CLIP. seen, new: solutions, or None where zero-shot CLIP stays.
        seen_temperature, new_temperature: T and T'. trust: weight of the map for new classes.
        chosen: what was chosen, for the details.
    """

    sharpness: float
    seen: Solution | None
    new: Solution | None
    seen_temperature: float
    new_temperature: float
    trust: float = 1.0
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

    def solve(self, setting: Setting, tolerance: float = 1e-3) -> Solution:
        """Solve at one setting."""
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
        shared = None
        if setting.shared and like.vectors is not None:
            # the mean of B given W: C⁻¹ takes the part that the texts explain
            explained = (like.gather(weight) / like.values) @ like.vectors.T
            shared = (setting.shared * self.unit) * (matrix @ (explained @ self.texts))
        return Solution(self.x.mean(0), matrix @ weight, shared, self.t.mean(0))

    def _view(self, whiten: bool) -> tuple[Tensor, Features]:
        """Return ``A`` times the rotation (d, r), and the features that it gives."""
        centred = self.x - self.x.mean(0)
        matrix = whitening(self.x, self.y, self.t) if whiten else None
        z = centred if matrix is None else centred @ matrix
        unit = z.square().sum(1).mean().clamp_min(1e-12).rsqrt()
        features = decompose(z * unit)
        rotate = features.rotate if matrix is None else matrix @ features.rotate
        return rotate * unit, features


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
    setting, warm = _choose_seen(x, y, t, factor, choices, val_x, val_y, seed)
    new_setting, weight, cool = _choose_new(x, y, t, factor, choices, seed)
    problem = ConvexProblem(x, y, t, factor * x @ t.T)
    seen = problem.solve(setting) if setting.own or setting.shared else None
    new = None if new_setting is None else problem.solve(new_setting)
    chosen = {
        "sharpness of zero-shot": sharpness,
        "seen": asdict(setting) | {"temperature": warm},
        "new": (asdict(new_setting) if new_setting else {})
        | {"weight": weight, "temperature": cool},
    }
    return ConvexFit(sharpness, seen, new, warm, cool, weight, chosen)


def _choose_seen(
    x: Tensor, y: Tensor, t: Tensor, factor: float, choices: ConvexRecipe,
    val_x: Tensor, val_y: Tensor, seed: int,
) -> tuple[Setting, float]:  # fmt: skip
    """Return the setting for seen classes, and its temperature."""
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

    def judge(setting: Setting) -> tuple[float, float]:
        parts = []
        for problem, test_x, test_y in held:
            added = problem.solve(setting, 1e-2).seen(test_x)
            parts.append((factor * test_x @ t.T + added, test_y))
        temperature = best_temperature(parts)
        loss = sum(float(cross_entropies(a * temperature, b).sum()) for a, b in parts)
        return loss, temperature

    found: dict[Setting, tuple[float, float]] = {}
    start = choices.shared[len(choices.shared) // 2] if c >= 200 else choices.shared[0]
    for whiten in choices.whiten:
        for own in choices.own:
            found[Setting(whiten, own, start)] = judge(Setting(whiten, own, start))
    best = min(found, key=lambda s: found[s][0])
    for shared in choices.shared:
        if shared != start:
            setting = Setting(best.whiten, best.own, shared)
            found[setting] = judge(setting)
    best = min(found, key=lambda s: found[s][0])
    return best, found[best][1]


def _unjudged(zero_shot: Tensor, y: Tensor, choices: ConvexRecipe) -> tuple[Setting, float]:
    """Return setting and temperature where nothing can be held out: one shot, no validation.

    Images go the further from the texts, the less zero-shot CLIP (n, c) knows of their labels: a
    share of what guessing costs. The rule was fitted by eye to training images of four data sets.
    """
    guess = math.log(zero_shot.shape[1])
    ignorance = min(1.0, float(cross_entropies(zero_shot, y).mean()) / guess)
    setting = Setting(False, choices.single_own * ignorance, choices.single_shared)
    return setting, max(1.0, 0.85 + ignorance)


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
        for whiten in choices.whiten
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
            added = problem.solve(setting, 1e-2).new(test_x, t[unknown])
            moved[setting].append((zero_shot + added, test_y))

    def losses(parts: Parts) -> tuple[Tensor, float]:
        temperature = best_temperature(parts)
        return torch.cat([cross_entropies(a * temperature, b) for a, b in parts]), temperature

    start, cool = losses(plain)
    found = {setting: losses(parts)[0] for setting, parts in moved.items()}
    best = min(found, key=lambda setting: float(found[setting].sum()))
    gains = x.new_zeros(c).index_add_(0, torch.cat(owners), start - found[best])
    sure = float(gains.sum()) / max(float(gains.std()) * math.sqrt(c), 1e-9)  # z
    weight = 1.0 - choices.doubt / max(sure, 1e-9) ** 2
    if weight <= 0:
        return None, 0.0, cool
    mixed = [(torch.lerp(a, b, weight), z) for (a, z), (b, _) in zip(plain, moved[best])]
    return best, weight, losses(mixed)[1]


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
    return max(2, choices.images // classes)


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

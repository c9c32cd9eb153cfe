"""What the default recipe chooses, by images that a fit has not seen, and how sure that makes it.

Seen classes are judged by folds of the shots, new ones by held-out classes. Everything goes by
cross-entropy. Settings run a race: after the first fold those that are surely worse are out.

n images, c classes, d embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from .convex_problem import ConvexProblem, Setting, Solution
from .pieces import ZeroShotLogits, blocks, rows_that_fit, spread_rows
from .recipe import ConvexRecipe
from .temperature import Parts, best_temperature, cross_entropies, losses

_WEIGHTS = (0.125, 0.25, 0.5, 1.0)  # of what is added to zero-shot CLIP
_ENOUGH = 2000  # images, but two a class: what one number of zero-shot CLIP is chosen by
_SURELY = 2.0  # standard errors, by which a setting must be worse to be out of the race
_MANY = 200  # classes, from which on the shared map pays for seen classes
_ENOUGH_CLASSES = 200  # held out, to judge what is added for new ones
_MOST_CLASSES = 10_000  # of more, a part drawn at random chooses what is added for new ones


@dataclass
class Choice:
    """What is added to zero-shot CLIP for one kind of class.

    Attributes:
        setting: None where nothing is. weight: λ. temperature: T.
        start: a solution at this setting, near that of all images; None where there is none.
    """

    setting: Setting | None = None
    weight: float = 0.0
    temperature: float = 1.0
    start: Solution | None = None

    def facts(self) -> dict[str, Any]:
        """Return the choice as the details of a run show it."""
        setting = asdict(self.setting) if self.setting else {}
        return setting | {"weight": self.weight, "temperature": self.temperature}


@dataclass
class Fold:
    """A problem of some images, and images (n', d) that judge it.

    Attributes:
        y: (n',) labels among the judged classes. t: (c', d) texts of those. owners: (n',) class of
            each image, in the whole problem. zero_shot: (n', c') logits.
        held_out: whether the problem has not seen these classes.
    """

    problem: ConvexProblem
    x: Tensor
    y: Tensor
    t: Tensor
    owners: Tensor
    zero_shot: Tensor
    held_out: bool = False
    solutions: dict[Setting, Solution] = field(default_factory=dict)

    def judge(self, setting: Setting) -> tuple[Tensor, Tensor]:
        """Return logits (n', c') at a setting, and labels."""
        found = self.problem.solve(setting, rough=True)
        self.solutions[setting] = found
        added = found.new(self.x, self.t) if self.held_out else found.seen(self.x)
        return self.zero_shot + added, self.y


class Race:
    """Settings judged by fold after fold; those surely worse than the best are left out."""

    def __init__(self, folds: Sequence[Fold]) -> None:
        """Take folds, those first that shall judge most."""
        self.folds = folds
        self.parts: dict[Setting, list[tuple[Tensor, Tensor]]] = {}

    def loss(self, setting: Setting) -> float:
        """Return the summed cross-entropy on the first fold."""
        if setting not in self.parts:
            self.parts[setting] = [self.folds[0].judge(setting)]
        return float(losses(self.parts[setting]).sum())

    def climb(self, settings: Sequence[Setting], start: int) -> Setting:
        """Return the best of settings in order of one variance, from ``start`` up or down."""
        here = start
        self.loss(settings[here])  # the others start where it ends
        for step in (1, -1):
            while 0 <= here + step < len(settings):
                if self.loss(settings[here + step]) >= self.loss(settings[here]):
                    break
                here += step
            if here != start:
                break
        return settings[here]

    def best(self) -> Setting:
        """Let the remaining folds judge what is still in, and return the best."""
        for fold in self.folds[1:]:
            costs = {setting: losses(parts) for setting, parts in self.parts.items()}
            first = min(costs, key=lambda setting: float(costs[setting].sum()))
            for setting, cost in costs.items():
                worse = cost - costs[first]
                error = float(worse.std()) * math.sqrt(len(worse)) if len(worse) > 1 else math.inf
                if setting != first and float(worse.sum()) > _SURELY * error:
                    del self.parts[setting]
            for setting, parts in self.parts.items():
                parts.append(fold.judge(setting))
        return min(self.parts, key=lambda setting: float(losses(self.parts[setting]).sum()))

    def owners(self) -> Tensor:
        """Return the class of each judged image."""
        return torch.cat([fold.owners for fold in self.folds])

    def plain(self) -> Parts:
        """Return what zero-shot CLIP says of the judged images."""
        return [(fold.zero_shot, fold.y) for fold in self.folds]


def choose_seen(
    whole: ConvexProblem,
    factor: float,
    choices: ConvexRecipe,
    val_x: Tensor,
    val_y: Tensor,
    seed: int,
) -> Choice:
    """Return what is added for the trained classes.

    Args:
        whole: the problem of all images. factor: of cosines, as zero-shot CLIP is best.
        choices: what is chosen from. val_x, val_y: (m, d) and (m,), may be empty. seed: of folds.
    """
    x, y, t = whole.x, whole.y, whole.t
    c = len(t)
    rank = rank_in_class(y, seed)

    def fold(train: Tensor, test_x: Tensor, test_y: Tensor) -> Fold:
        problem = ConvexProblem(x[train], y[train], t, whole.offset[train])
        some = spread_rows(len(test_y), c).to(y.device)  # of very many classes a part judges
        test_x, test_y = test_x[some], test_y[some]
        return Fold(problem, test_x, test_y, t, test_y, factor * test_x @ t.T)

    folds = [fold(train, x[test], y[test]) for train, test in _photo_splits(rank, y, c, choices)]
    if len(val_y):
        folds.append(fold(rank < _per_class(c, choices), val_x, val_y))
    if not folds:
        return _unjudged(whole.offset, y, c, choices)
    race = Race(folds)
    setting = _race_for_seen(race, choices, c)
    plain, moved, owners = race.plain(), race.parts[setting], race.owners()
    start = folds[0].solutions[setting]
    if int(rank.max()) >= _per_class(c, choices):  # all images now, since they set the temperature
        train = rank % choices.folds > 0 if choices.folds > 1 else rank > 0
        last = fold(train, x[~train], y[~train])
        start = last.problem.solve(setting, rough=True, start=start)
        plain = [(last.zero_shot, last.y)]
        moved = [(last.zero_shot + start.seen(last.x), last.y)]
        owners = last.owners
    weight, mixed = trusted(plain, moved, owners, c, choices.doubt)
    return Choice(setting, weight, best_temperature(mixed), start)


def _race_for_seen(race: Race, choices: ConvexRecipe, classes: int) -> Setting:
    """Return the best setting: first δ's variance, then whitening, then the map's variance."""
    owns = sorted(set(choices.own))
    shared = choices.shared[len(choices.shared) // 2 if classes >= _MANY else 0]
    place = len(owns) // 2
    for whiten in choices.whiten:
        settings = [Setting(whiten, own, shared) for own in owns]
        place = owns.index(race.climb(settings, place).own)
    best = min(race.parts, key=race.loss)
    for other in choices.shared:
        race.loss(Setting(best.whiten, best.own, other))
    return race.best()


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
        sure = sure_gain(stay - losses(mixed), owners, classes, doubt)
        if sure > best:
            best, chosen, chosen_parts = sure, weight, mixed
    return chosen, chosen_parts


def sure_gain(gains: Tensor, owners: Tensor, classes: int, doubt: float) -> float:
    """Return the sum of gains (n,) less ``doubt`` standard errors of it, over classes.

    Over classes, not images: other classes must gain as well, and images of one class are alike.
    One class alone says nothing of others: no gain of it is sure.

    >>> round(sure_gain(torch.tensor([1.0, 1.0, 3.0, 3.0]), torch.tensor([0, 0, 1, 1]), 2, 1.0), 3)
    4.0
    """
    by_class = gains.new_zeros(classes).index_add_(0, owners, gains)
    by_class = by_class[torch.bincount(owners, minlength=classes) > 0]
    if len(by_class) < 2:
        return -math.inf
    return float(by_class.sum()) - doubt * float(by_class.std()) * math.sqrt(len(by_class))


def _unjudged(
    zero_shot: Tensor | ZeroShotLogits, y: Tensor, classes: int, choices: ConvexRecipe
) -> Choice:
    """Return the same where nothing can be held out: one shot without validation.

    Images go the further from the texts, the less zero-shot CLIP (n, c) knows of their labels: a
    share of what guessing costs. The rule was fitted by eye to training images of four data sets.
    """
    costs = torch.cat([cross_entropies(block, y[rows]) for rows, block in blocks(zero_shot)])
    ignorance = min(1.0, float(costs.mean()) / math.log(classes))
    setting = Setting(False, choices.single_own * ignorance, choices.single_shared)
    return Choice(setting, 1.0, max(1.0, 0.85 + ignorance))


def choose_new(whole: ConvexProblem, factor: float, choices: ConvexRecipe, seed: int) -> Choice:
    """Return what is added for classes without images; arguments as in :func:`choose_seen`."""
    c = len(whole.t)
    if choices.class_folds < 2 or c < 4 or not choices.new_shared:
        return Choice()
    race = Race(list(_class_folds(whole, factor, choices, seed)))
    for whiten in choices.new_whiten:
        for shared in choices.new_shared:
            race.loss(Setting(whiten, choices.new_own, shared))
    setting = race.best()
    weight, mixed = trusted(race.plain(), race.parts[setting], race.owners(), c, choices.new_doubt)
    if not weight:
        return Choice()
    # relative to that of zero-shot CLIP on the same few classes, whose own is known from all
    return Choice(setting, weight, best_temperature(mixed) / best_temperature(race.plain()))


def _class_folds(
    whole: ConvexProblem, factor: float, choices: ConvexRecipe, seed: int
) -> Iterator[Fold]:
    """Yield problems without some classes, judged by the images of those."""
    t, c = whole.t, len(whole.t)
    few = rank_in_class(whole.y, seed) < _per_class(c, choices)
    x, y = whole.x[few], whole.y[few]
    generator, judged = torch.Generator().manual_seed(seed), 0
    drawn = torch.randperm(c, generator=generator)[:_MOST_CLASSES]
    for part in drawn.chunk(min(choices.class_folds, c // 2)):
        if judged >= _ENOUGH_CLASSES:
            return
        judged += len(part)
        unknown = part.sort().values.to(y.device)
        known = torch.zeros(c, dtype=torch.bool, device=y.device)
        known[drawn] = True
        known[unknown] = False
        ids = known.nonzero()[:, 0]
        into = known[y]
        out = torch.isin(y, unknown) if len(drawn) < c else ~into
        offset = ZeroShotLogits.of(x[into], t[ids], factor)
        problem = ConvexProblem(x[into], torch.searchsorted(ids, y[into]), t[ids], offset)
        zero_shot = factor * x[out] @ t[unknown].T
        yield Fold(
            problem, x[out], torch.searchsorted(unknown, y[out]), t[unknown], y[out], zero_shot,
            held_out=True,
        )  # fmt: skip


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


def enough_images(y: Tensor, classes: int) -> Tensor:
    """Return a mask (n,) of images that are enough to choose one number by."""
    if len(y) <= _ENOUGH:
        some = torch.ones_like(y, dtype=torch.bool)
    else:
        some = rank_in_class(y, 0) < max(2, math.ceil(_ENOUGH / classes))
    numbers = some.nonzero()[:, 0]
    most = rows_that_fit(classes)
    if len(numbers) <= most:
        return some
    fewer = torch.zeros_like(some)
    fewer[numbers[spread_rows(len(numbers), classes).to(y.device)]] = True
    return fewer


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

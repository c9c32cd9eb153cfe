"""Which settings race, on which images, and what is done where nothing can be held out."""

from __future__ import annotations

import math

import pytest
import torch
from toy_shots import C, problem

from aape.adapter.method import convex_folds
from aape.adapter.method.convex_folds import (
    Choice,
    Fold,
    Race,
    _class_folds,
    _photo_splits,
    _race_for_seen,
    choose_new,
    choose_seen,
    enough_images,
    rank_in_class,
    sure_gain,
)
from aape.adapter.method.convex_problem import ConvexProblem, Setting
from aape.adapter.method.recipe import ConvexRecipe
from aape.adapter.method.temperature import best_temperature


class _Known(Race):
    """A race whose losses the test knows."""

    def __init__(self) -> None:
        super().__init__([])
        self.parts: dict[Setting, list] = {}

    def loss(self, setting: Setting) -> float:
        self.parts.setdefault(setting, [])
        return abs(math.log2(setting.own / 2)) - setting.whiten - setting.shared / 1000

    def best(self) -> Setting:
        return min(self.parts, key=self.loss)


@pytest.mark.parametrize(("classes", "first"), [(199, 0.0), (200, 30.0), (201, 30.0)])
def test_variances_are_climbed_in_order_and_the_map_comes_last(classes, first):
    """A variance of 2 is best, whitened, with the largest map; two hundred classes pay for one."""
    race = _Known()
    choices = ConvexRecipe(own=[8, 1, 2, 4, 4], shared=[0, 30, 300], whiten=[False, True])
    assert _race_for_seen(race, choices, classes) == Setting(True, 2.0, 300.0)
    asked = [(setting.whiten, setting.own) for setting in race.parts]
    assert asked[:7] == [
        *[(False, own) for own in (4, 8, 2, 1)],  # from the middle up, else down
        *[(True, own) for own in (2, 4, 1)],  # from where that ended
    ]
    assert {setting.shared for setting in list(race.parts)[:7]} == {first}
    others = [s for s in (0.0, 30.0, 300.0) if s != first]
    assert list(race.parts)[7:] == [Setting(True, 2.0, shared) for shared in others]


class _Priced(Fold):
    """A fold that says what each image costs."""

    def __init__(self, costs: dict[float, torch.Tensor]) -> None:
        self.costs, self.asked = costs, []

    def judge(self, setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append(setting.own)
        return self.costs[setting.own], torch.zeros(len(self.costs[setting.own]))


@pytest.mark.parametrize(("errors", "still_in"), [(1.9, True), (2.1, False)])
def test_two_standard_errors_are_surely_worse(errors, still_in, monkeypatch):
    monkeypatch.setattr(
        convex_folds, "losses", lambda parts: torch.cat([cost for cost, _ in parts])
    )
    sign = torch.tensor([1.0, -1.0]).repeat(50).double()
    spread = 10 / errors  # the error of the sum, 100, is this times ten
    worse = 1 + spread * sign / sign.std()
    costs = {1.0: torch.zeros(100).double(), 2.0: worse}
    first, second = _Priced(costs), _Priced(costs)
    race = Race([first, second])
    for own in (2.0, 1.0):
        race.loss(Setting(False, own, 0.0))
    assert race.best().own == 1.0
    assert (2.0 in second.asked) == still_in


@pytest.mark.parametrize(
    ("classes", "folds", "parts"),
    [(4, 4, [2, 2]), (5, 4, [3, 2]), (6, 2, [3, 3]), (24, 5, [5, 5, 5, 5, 4])],
)
def test_parts_of_the_classes_have_two_at_least(classes, folds, parts):
    data = problem(classes=classes)
    whole = ConvexProblem(data.x, data.y, data.w, 20 * data.x @ data.w.T)
    found = list(_class_folds(whole, 20.0, ConvexRecipe(class_folds=folds), 0))
    assert [len(fold.t) for fold in found] == parts
    for fold in found:
        torch.testing.assert_close(fold.t[fold.y], data.w[fold.owners])
        torch.testing.assert_close(fold.zero_shot, 20 * fold.x @ fold.t.T)


def test_held_out_classes_use_as_many_photos_as_choosing_may():
    data = problem(shots=9, classes=8)
    whole = ConvexProblem(data.x, data.y, data.w, 20 * data.x @ data.w.T)
    for fold in _class_folds(whole, 20.0, ConvexRecipe(images=40), 0):  # five of each class
        assert torch.bincount(fold.problem.y).tolist() == [5] * 6
        assert torch.bincount(fold.y).tolist() == [5] * 2


def test_the_temperature_of_new_classes_is_relative_to_zero_shot(monkeypatch):
    """On the same few classes, since zero-shot CLIP's own is known from all."""
    data = problem(shots=12, classes=4, noise=2.0, wrong=1.5)
    whole = ConvexProblem(data.x, data.y, data.w, 20 * data.x @ data.w.T)
    choices = ConvexRecipe(new_whiten=[True], new_shared=[40.0], new_own=3.0)
    plain, moved = [], []
    for fold in _class_folds(whole, 20.0, choices, 0):
        plain.append((fold.zero_shot, fold.y))
        moved.append(fold.judge(Setting(True, 3.0, 40.0)))
    monkeypatch.setattr(convex_folds, "trusted", lambda plain, moved, *rest: (0.5, moved))
    found = choose_new(whole, 20.0, choices, 0)
    assert found.setting == Setting(True, 3.0, 40.0)
    assert found.weight == 0.5
    expected = best_temperature(moved) / best_temperature(plain)
    assert found.temperature == pytest.approx(expected)
    assert abs(math.log(expected)) > 0.05
    assert choose_new(whole, 20.0, choices.model_copy(update={"new_shared": []}), 0) == Choice()


@pytest.mark.parametrize("gain", [-5.0, 0.0, 1.0, 10.0])
def test_one_shot_goes_as_far_as_zero_shot_is_ignorant(gain):
    """Where no photo can be held out: a share of what guessing costs, at most all of it."""
    data = problem(shots=1)
    offset = gain * torch.eye(C)[data.y]
    whole = ConvexProblem(data.x, data.y, data.w, offset)
    found = choose_seen(whole, 20.0, ConvexRecipe(), data.x[:0], data.y[:0], 0)
    cost = math.log(1 + (C - 1) * math.exp(-gain))
    ignorance = min(1.0, cost / math.log(C))
    assert found.setting is not None
    assert found.setting.own == pytest.approx(200 * ignorance, rel=1e-4)
    assert (found.setting.whiten, found.setting.shared) == (False, 10.0)
    assert found.weight == 1.0
    assert found.temperature == pytest.approx(max(1.0, 0.85 + ignorance))


@pytest.mark.filterwarnings("error")
def test_where_one_class_alone_has_photos_to_spare_nothing_is_sure():
    """Three classes, two photos of the first: no spread over classes, and no warning of torch's."""
    data = problem(shots=2, classes=3)
    x, y = data.x[:4], data.y[:4]
    whole = ConvexProblem(x, y, data.w, 20 * x @ data.w.T)
    found = choose_seen(whole, 20.0, ConvexRecipe(doubt=0), x[:0], y[:0], 0)
    assert found.weight == 0.0
    assert sure_gain(torch.tensor([5.0, 5.0]), torch.tensor([1, 1]), 3, 0.0) == -math.inf


def test_two_thousand_photos_are_enough_to_choose_one_number_by():
    uneven = torch.cat([torch.zeros(1500), torch.ones(501)]).long()
    assert enough_images(uneven[:2000], 2).all()
    assert torch.bincount(uneven[enough_images(uneven, 2)]).tolist() == [1000, 501]
    for classes, shots, each in ((300, 10, 7), (2500, 3, 2)):  # rounded up; two at least
        y = torch.arange(classes).repeat(shots)
        assert torch.bincount(y[enough_images(y, classes)]).tolist() == [each] * classes


@pytest.mark.parametrize(
    ("shots", "changed", "parts"),
    [(3, {}, 3), (1, {}, 0), (8, {"folds": 10, "images": 1}, 4),
     (4, {"judged": C}, 1), (4, {"judged": C + 1}, 2), (4, {"judged": 2 * C}, 2)],
)  # fmt: skip
def test_there_are_as_many_folds_as_photos_of_a_class_and_as_are_needed(shots, changed, parts):
    y = torch.arange(C).repeat(shots)
    choices = ConvexRecipe(**{"judged": 1000} | changed)
    assert len(list(_photo_splits(rank_in_class(y, 0), y, C, choices))) == parts

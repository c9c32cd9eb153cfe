"""What the convex recipe chooses, judged by whom; and how many values its terms have."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from toy_shots import C, D, problem, unit

from aape.adapter.method import convex_folds, convex_problem
from aape.adapter.method.convex import fit_convex
from aape.adapter.method.convex_folds import (
    _class_folds,
    _photo_splits,
    rank_in_class,
    trusted,
)
from aape.adapter.method.convex_problem import ConvexProblem, Setting
from aape.adapter.method.discriminant import Discriminant
from aape.adapter.method.problem import ClassSet
from aape.adapter.method.recipe import ConvexRecipe
from aape.adapter.method.temperature import best_temperature
from aape.adapter.method.terms import Gaussian, OwnWeights, Residual, SharedMap, ZeroShot


def test_the_number_of_trained_values_is_that_of_the_tensors():
    data = problem(classes=20)
    classes, width = data.w.shape
    terms = {
        "zero-shot": (ZeroShot(20.0), 0),
        "own weights": (OwnWeights(torch.zeros(width, classes), torch.zeros(classes)),
                        width * classes + classes),
        "shared map": (SharedMap(torch.zeros(width, width), torch.zeros(width), data.w.mean(0)),
                       width * width + width),
        "residual": (Residual(data.w, torch.zeros(classes, width), 20.0), classes * width),
        "gaussian": (Gaussian(Discriminant(torch.zeros(classes, width), torch.zeros(classes))), 0),
    }  # fmt: skip
    for name, (term, parameters) in terms.items():
        assert (term.name, term.parameters) == (name, parameters)


def test_terms_are_their_formulas():
    """Of two images and two classes: one trained as number 1, one new."""
    x, text, delta = unit(2, D, seed=1), unit(3, D, seed=2), unit(3, D, seed=3)
    matrix, shift, mean = unit(D, D, seed=4), unit(D, seed=5), unit(D, seed=6)
    weight, bias = unit(D, 3, seed=7), unit(3, seed=8)
    t = unit(2, D, seed=9)
    classes = ClassSet(t, t, t, None, torch.tensor([1, -1]))
    moved = (text[1] + delta[1]) / (text[1] + delta[1]).norm()
    gaussian = Discriminant(weight.T.contiguous(), bias)
    expected = [
        (ZeroShot(20.0), [[20 * float(i @ c) for c in t] for i in x]),
        (Residual(text, delta, 20.0), [[20 * float(i @ moved), 0] for i in x]),
        (OwnWeights(weight, bias), [[float(i @ weight[:, 1] + bias[1]), 0] for i in x]),
        (
            SharedMap(matrix, shift, mean),
            [[float((i @ matrix + shift) @ (c - mean)) for c in t] for i in x],
        ),
        (Gaussian(gaussian), [[float(gaussian(i[None])[0, 1]), 0] for i in x]),
    ]
    for term, scores in expected:
        torch.testing.assert_close(term(x, classes), torch.tensor(scores), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("images", "rough", "tolerance"),
    [(60, False, 3e-3), (60, True, 3e-3), (600, False, 3e-3), (600, True, 0.02),
     (4200, False, 0.01), (4200, True, 0.02)],
)  # fmt: skip
def test_many_images_are_solved_as_exactly_as_they_need(images, rough, tolerance, monkeypatch):
    asked = []

    def regression(features, y, offset, like, *, start, tolerance):
        asked.append(tolerance)
        return torch.zeros(features.z.shape[1], C)

    monkeypatch.setattr(convex_problem, "softmax_regression", regression)
    data = problem(shots=images // C)
    part = ConvexProblem(data.x, data.y, data.w, 20 * data.x @ data.w.T)
    part.solve(Setting(False, 1.0, 0.0), rough=rough)
    part.solve(Setting(False, 1.0, 0.0), 0.5, rough=rough)
    assert asked == [tolerance, 0.5]


@pytest.mark.parametrize(("enough", "folds"), [(6, 1), (7, 2), (12, 2), (13, 3), (25, 4)])
def test_held_out_classes_end_where_they_are_enough(enough, folds, monkeypatch):
    """24 classes in four parts of six."""
    monkeypatch.setattr(convex_folds, "_ENOUGH_CLASSES", enough)
    data = problem(classes=24)
    whole = ConvexProblem(data.x, data.y, data.w, 20 * data.x @ data.w.T)
    found = list(_class_folds(whole, 20.0, ConvexRecipe(), 0))
    assert len(found) == folds
    held = torch.cat([fold.owners.unique() for fold in found]).tolist()
    assert len(held) == len(set(held)) == 6 * folds
    for fold in found:
        assert fold.held_out
        rows = (fold.problem.x[:, None] == data.x).all(-1).int().argmax(1)
        assert not set(fold.owners.tolist()) & set(data.y[rows].tolist())


@pytest.mark.parametrize("classes", [2, 3])
def test_three_classes_leave_none_to_hold_out(classes):
    data = problem(classes=classes)
    found = fit_convex(data.x, data.y, data.w, data.scale, ConvexRecipe())
    assert found.new is None
    assert (found.new_weight, found.new_temperature) == (0.0, 1.0)
    assert found.chosen["new"] == {"weight": 0.0, "temperature": 1.0}


@pytest.mark.parametrize("folds", [0, 1, 2, 3])
def test_new_classes_are_judged_from_two_folds_of_the_classes_on(folds):
    data, turn = problem(classes=24), torch.linalg.qr(unit(D, D, seed=4))[0]
    x = F.normalize(data.w[data.y] @ turn + 0.1 * unit(len(data.y), D, seed=5), dim=-1)
    recipe = ConvexRecipe(class_folds=folds)
    found = fit_convex(x, data.y, data.w, data.scale, recipe)
    assert (found.new is not None) == (folds >= 2)


@pytest.mark.parametrize(("folds", "images"), [(4, 600), (4, 24), (2, 30), (3, 1)])
def test_folds_cut_the_images_that_choosing_may_use(folds, images):
    """Ranks below the limit, each judged once; a class of one image is only trained on."""
    y = torch.cat([torch.arange(C).repeat(8), torch.tensor([C])])
    rank = rank_in_class(y, 0)
    limit = max(4, images // (C + 1))
    recipe = ConvexRecipe(folds=folds, images=images, judged=1000)
    judged = torch.zeros(len(y), dtype=torch.long)
    parts = list(_photo_splits(rank, y, C + 1, recipe))
    assert len(parts) == folds
    for train, test in parts:
        assert not (train & test).any()
        assert torch.equal(train | test, rank < limit)
        assert set(y[train].tolist()) == set(range(C + 1))
        judged += test
    assert torch.equal(judged, ((rank < limit) & (y < C)).long())
    few = recipe.model_copy(update={"judged": 1})
    assert len(list(_photo_splits(rank, y, C + 1, few))) == 1, "enough images are judged"
    assert not list(_photo_splits(rank, y, C + 1, recipe.model_copy(update={"folds": 1})))


@pytest.mark.parametrize("folds", [1, 4])
def test_the_last_temperature_is_that_of_all_images(folds):
    """More images than choosing may use: the end is trained on all but one fold, judged by it."""
    data = problem(shots=12)
    val = problem(shots=20)
    recipe = ConvexRecipe(folds=folds, images=1, own=[10.0], shared=[0.0], whiten=[False], doubt=0)
    found = fit_convex(data.x, data.y, data.w, 20.0, recipe, val.x[:60], val.y[:60], seed=1)
    rank = rank_in_class(data.y, 1)
    train = rank % folds > 0 if folds > 1 else rank > 0
    offset = found.sharpness * 20 * data.x @ data.w.T
    part = ConvexProblem(data.x[train], data.y[train], data.w, offset[train])
    moved = offset[~train] + part.solve(Setting(False, 10.0, 0.0), 1e-6).seen(data.x[~train])
    weight, mixed = trusted(
        [(offset[~train], data.y[~train])], [(moved, data.y[~train])], data.y[~train], C, 0.0
    )
    assert found.seen_weight == weight > 0
    assert found.seen_temperature == pytest.approx(best_temperature(mixed), rel=0.05)

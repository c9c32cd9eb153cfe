"""One convex problem against its definition, and at its edges: nothing to centre, few images."""

from __future__ import annotations

import pytest
import torch
from toy_shots import C, D, problem, unit

from aape.adapter.method import convex_problem
from aape.adapter.method.convex import fit_convex
from aape.adapter.method.convex_folds import Fold
from aape.adapter.method.convex_problem import ConvexProblem, Setting, whitening
from aape.adapter.method.recipe import ConvexRecipe


@pytest.mark.parametrize("whiten", [False, True])
def test_a_solution_is_a_fixed_point_of_its_definition(whiten):
    """Where the gradient is zero, ``W = Zᵀ(Y − P) C``, and B is the part that texts explain."""
    data = problem(shots=8)
    x = data.x.double() + 0.5 * data.x[0].double()  # images with a mean
    t, y = data.w.double(), data.y
    offset = 20 * x @ t.T
    part = ConvexProblem(x, y, t, offset)
    for _ in range(4):  # each starts where the last one ended
        found = part.solve(Setting(whiten, 5.0, 40.0), 1e-10)
    centred = x - x.mean(0)
    z = centred @ whitening(x, y, t) if whiten else centred
    z = torch.cat([z / z.square().sum(1).mean().sqrt(), torch.ones_like(z[:, :1])], 1)
    size = (t - t.mean(0)).square().sum(1).mean().sqrt()
    texts = (t - t.mean(0)) / size
    right = torch.nn.functional.one_hot(y, C).double()
    pull = z.T @ (right - (offset + found.seen(x)).softmax(1))
    weight = pull @ (5 * torch.eye(C, dtype=torch.float64) + 40 * texts @ texts.T)
    torch.testing.assert_close(found.seen(x), z @ weight, atol=1e-4, rtol=1e-4)
    new = unit(3, D, seed=5).double()
    expected = z @ (40 * pull @ texts) @ ((new - t.mean(0)) / size).T
    torch.testing.assert_close(found.new(x, new), expected, atol=1e-4, rtol=1e-4)
    assert float(expected.abs().max()) > 0.1


@pytest.mark.parametrize("whiten", [False, True])
def test_a_problem_begins_where_it_last_ended_or_where_another_did(whiten, monkeypatch):
    begun, ended, features = [], [], []
    solve = convex_problem.softmax_regression

    def regression(given, *rest, start, **named):
        begun.append(start)
        features.append(given)
        ended.append(solve(given, *rest, start=start, **named))
        return ended[-1]

    monkeypatch.setattr(convex_problem, "softmax_regression", regression)
    data = problem(shots=8)
    x, t, y = data.x.double() + 0.5 * data.x[0].double(), data.w.double(), data.y
    few = torch.arange(len(x)) < 30
    other = ConvexProblem(x[few], y[few], t, 20 * x[few] @ t.T).solve(Setting(whiten, 5.0, 40.0))
    part = ConvexProblem(x, y, t, 20 * x @ t.T)
    part.solve(Setting(whiten, 5.0, 40.0), start=other)
    part.solve(Setting(whiten, 1.0, 0.0), start=other)
    part.solve(Setting(not whiten, 5.0, 40.0))
    assert begun[0] is None
    torch.testing.assert_close(features[1].z @ begun[1], other.seen(x))
    assert begun[2] is ended[1]
    assert begun[3] is None


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("same", ["images", "texts", "both"])
def test_what_is_all_alike_leaves_finite_numbers(same, whiten):
    """One photo copied for every class, one description for all: nothing to divide by."""
    data = problem(shots=2)
    x = data.x[:1].expand_as(data.x) if same != "texts" else data.x
    t = data.w[:1].expand_as(data.w) if same != "images" else data.w
    found = ConvexProblem(x, data.y, t, 20 * x @ t.T).solve(Setting(whiten, 5.0, 40.0))
    assert found.seen(data.x).isfinite().all()
    assert found.new(data.x, unit(3, D, seed=5)).isfinite().all()


def test_without_a_map_new_classes_get_nothing():
    data = problem()
    found = ConvexProblem(data.x, data.y, data.w, 20 * data.x @ data.w.T).solve(
        Setting(False, 5.0, 0.0)
    )
    assert found.shared is None
    assert torch.equal(found.new(data.x[:5], data.w[:3]), torch.zeros(5, 3))


def test_no_variance_of_its_own_is_a_thousandth():
    """Zero would divide by zero where a class lies outside what the texts span."""
    data = problem()

    def seen(own: float) -> torch.Tensor:
        part = ConvexProblem(data.x, data.y, data.w, 20 * data.x @ data.w.T)
        return part.solve(Setting(False, own, 40.0)).seen(data.x)

    assert torch.equal(seen(0.0), seen(1e-3))
    assert not torch.allclose(seen(0.0), seen(1.0), atol=1e-3)


def _rows(case: str, y: torch.Tensor) -> torch.Tensor:
    """Return which of three images a class are there."""
    if case == "one of a class":
        return torch.cat([torch.tensor([0]), (y > 0).nonzero()[:, 0]])
    return torch.arange({"two of each": 2 * C, "one fewer": 2 * C - 1}[case])


@pytest.mark.parametrize("case", ["two of each", "one fewer", "one of a class"])
def test_with_fewer_than_two_images_a_class_the_spread_is_that_about_the_texts(case):
    data = problem(shots=3)
    rows = _rows(case, data.y)
    x, y, t = data.x[rows].double(), data.y[rows], data.w.double()
    if case == "one fewer":
        apart = x - t[y]
        apart = apart - apart.mean(0)
    else:
        apart = x - torch.stack([x[y == label].mean(0) for label in y])
    scatter = apart.T @ apart
    spread = scatter + scatter.trace() / (len(x) - 1) * torch.eye(D, dtype=torch.float64)
    matrix = whitening(x, y, t)
    expected = torch.eye(D, dtype=torch.float64)
    torch.testing.assert_close(matrix @ spread @ matrix, expected, atol=1e-5, rtol=0)


def test_one_image_has_no_spread():
    data = problem()
    assert whitening(data.x[:1], data.y[:1], data.w).isfinite().all()


def test_nothing_is_added_where_nothing_is_surely_good():
    data = problem(shots=8)
    choices = ConvexRecipe(doubt=1000, new_doubt=1000)
    found = fit_convex(data.x, data.y, data.w, data.scale, choices)
    assert found.seen is None
    assert found.new is None
    assert (found.seen_weight, found.new_weight) == (0.0, 0.0)


@pytest.mark.parametrize(("own", "shared"), [(10.0, 0.0), (0.0, 30.0), (0.0, 0.0)])
def test_what_has_no_variance_is_not_there(own, shared):
    data = problem(shots=8)
    choices = ConvexRecipe(own=[own], shared=[shared], class_folds=0, doubt=0)
    found = fit_convex(data.x, data.y, data.w, data.scale, choices)
    assert (found.seen is not None) == bool(own or shared)
    if found.seen is not None:
        assert (found.seen.shared is not None) == bool(shared)


def test_a_fold_is_solved_roughly(monkeypatch):
    """600 images while choosing: what is judged has more noise than the end of the descent."""
    asked = []

    def regression(features, y, offset, like, *, start, tolerance):
        asked.append(tolerance)
        return torch.zeros(features.z.shape[1], C)

    monkeypatch.setattr(convex_problem, "softmax_regression", regression)
    data = problem(shots=600 // C)
    offset = 20 * data.x @ data.w.T
    part = ConvexProblem(data.x, data.y, data.w, offset)
    fold = Fold(part, data.x, data.y, data.w, data.y, offset)
    logits, labels = fold.judge(Setting(False, 1.0, 0.0))
    assert asked == [0.02]
    assert torch.equal(logits, offset)  # of weights that are zero
    assert labels is data.y

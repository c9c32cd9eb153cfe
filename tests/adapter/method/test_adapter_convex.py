"""The convex recipe: its formulas against loops and scikit-learn, its choices, its promises."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy_shots import C, D, problem, unit

from aape.adapter.method.adapter import FittedAdapter
from aape.adapter.method.class_text import choose_class_text
from aape.adapter.method.convex import fit_convex
from aape.adapter.method.convex_folds import (
    Fold,
    Race,
    enough_images,
    rank_in_class,
    trusted,
)
from aape.adapter.method.convex_problem import ConvexProblem, Setting, whitening
from aape.adapter.method.problem import ClassSet, ClassText
from aape.adapter.method.recipe import DEFAULT, ConvexRecipe, controlled
from aape.adapter.method.softmax_regression import (
    Likeness,
    TextKernel,
    decompose,
    softmax_regression,
)
from aape.adapter.method.temperature import best_temperature
from aape.adapter.method.train import fit


def solved(own: float, shared: float, tolerance: float = 1e-7):
    data = problem()
    z, offset = data.x.double() - data.x.double().mean(0), (20 * data.x @ data.w.T).double()
    texts = data.w.double() - data.w.double().mean(0)
    kernel = TextKernel.of(texts)
    features = decompose(z)
    like = kernel.likeness(own, shared)
    weight = softmax_regression(features, data.y, offset, like, iterations=300, tolerance=tolerance)
    return data, z, offset, texts, features.rotate @ weight


@pytest.mark.parametrize(("own", "shared"), [(5.0, 0.0), (5.0, 40.0), (0.01, 100.0)])
def test_the_gradient_of_the_definition_is_zero(own, shared):
    data, z, offset, texts, weight = solved(own, shared)
    covariance = own * torch.eye(C, dtype=torch.float64) + shared * texts @ texts.T
    free = weight.clone().requires_grad_()
    loss = F.cross_entropy(offset + z @ free, data.y, reduction="sum")
    loss = loss + 0.5 * (free @ torch.linalg.inv(covariance) * free).sum()
    (gradient,) = torch.autograd.grad(loss, free)
    # in directions that no image has the weight must be zero already
    assert float((gradient @ covariance).abs().max()) < 1e-3
    worse = weight + 0.05 * torch.randn(D, C, generator=torch.Generator().manual_seed(7)).double()
    again = F.cross_entropy(offset + z @ worse, data.y, reduction="sum")
    again = again + 0.5 * (worse @ torch.linalg.inv(covariance) * worse).sum()
    assert again > loss


def test_displacements_and_the_map_are_one_problem():
    """Solving for W with covariance C is solving for B and δ with a ridge on each."""
    own, shared = 4.0, 30.0
    data, z, offset, texts, weight = solved(own, shared)
    b = torch.zeros(D, D, dtype=torch.float64, requires_grad=True)
    delta = torch.zeros(D, C, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([b, delta], max_iter=500, line_search_fn="strong_wolfe",
                                  tolerance_grad=1e-9, tolerance_change=1e-14)  # fmt: skip

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = offset + z @ (b @ texts.T + delta)
        value = F.cross_entropy(logits, data.y, reduction="sum")
        value = value + 0.5 * (b.square().sum() / shared + delta.square().sum() / own)
        value.backward()
        return value

    optimiser.step(loss)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(z @ weight, z @ (b @ texts.T + delta).detach(), atol=1e-3, rtol=1e-3)
    # and B is what fit_convex takes out of W for classes without images
    new = unit(3, D, seed=5).double() - data.w.double().mean(0)
    covariance = own * torch.eye(C, dtype=torch.float64) + shared * texts @ texts.T
    explained = shared * weight @ torch.linalg.inv(covariance) @ texts
    torch.testing.assert_close(z @ explained @ new.T, z @ b.detach() @ new.T, atol=1e-3, rtol=1e-3)


def test_without_offset_and_map_it_is_scikit_learns_logistic_regression():
    linear = pytest.importorskip("sklearn.linear_model")
    data, own = problem(), 3.0
    z = data.x.double()
    weight = softmax_regression(
        decompose(z), data.y, torch.zeros(len(z), C, dtype=torch.float64),
        Likeness(None, torch.full((C,), own, dtype=torch.float64)), iterations=300, tolerance=1e-8,
    )  # fmt: skip
    found = z @ decompose(z).rotate @ weight
    model = linear.LogisticRegression(C=own, fit_intercept=False, tol=1e-10, max_iter=5000)
    expected = torch.from_numpy(model.fit(z.numpy(), data.y.numpy()).decision_function(z.numpy()))
    torch.testing.assert_close(found.softmax(1), expected.softmax(1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("whiten", [False, True])
def test_whitening_and_scales_are_folded_into_the_weights(whiten):
    data = problem()
    offset = 20 * data.x @ data.w.T
    found = ConvexProblem(data.x, data.y, data.w, offset).solve(Setting(whiten, 5.0, 40.0), 1e-6)
    z = data.x - data.x.mean(0)
    z = z @ whitening(data.x, data.y, data.w) if whiten else z
    z = z * z.square().sum(1).mean().rsqrt()
    z = torch.cat([z, torch.ones(len(z), 1)], 1)
    texts = data.w - data.w.mean(0)
    texts = texts * texts.square().sum(1).mean().rsqrt()
    features = decompose(z)
    like = TextKernel.of(texts).likeness(5.0, 40.0)
    weight = softmax_regression(features, data.y, offset, like, iterations=300, tolerance=1e-6)
    expected = features.z @ weight
    torch.testing.assert_close(found.seen(data.x), expected, atol=2e-2, rtol=2e-2)
    assert found.new(data.x, data.w).shape == expected.shape
    # what the texts explain and what classes have of their own make the whole
    rest = found.seen(data.x) - found.new(data.x, data.w)
    assert float(rest.square().mean()) < float(expected.square().mean())


def test_whitening_is_the_inverse_root_of_the_spread_within_classes():
    data = problem(shots=40)
    matrix = whitening(data.x, data.y, data.w).double()
    scatter = torch.zeros(D, D, dtype=torch.float64)
    for label in range(C):
        images = data.x[data.y == label].double()
        for image in images:
            apart = image - images.mean(0)
            scatter += apart[:, None] * apart[None]
    ridge = scatter.trace() / (len(data.x) - 1)
    eye = torch.eye(D, dtype=torch.float64)
    torch.testing.assert_close(matrix @ (scatter + ridge * eye) @ matrix, eye, atol=1e-3, rtol=1e-3)


def test_temperature_is_the_best_of_a_fine_grid_and_one_image_does_not_make_it_extreme():
    data = problem(shots=40)
    logits = 100 * data.x @ data.w.T
    found = best_temperature([(logits, data.y)])
    losses = {
        t: float(F.cross_entropy(logits * t, data.y)) + 2 * math.log(t) ** 2 / len(data.y)
        for t in torch.logspace(-2, 1, 400).tolist()
    }
    assert found == pytest.approx(min(losses, key=lambda t: losses[t]), rel=0.05)
    assert best_temperature([(logits[:1], data.y[:1])]) < 5
    assert best_temperature([(logits[:0], data.y[:0])]) == 1.0


@pytest.mark.parametrize("turn", [1.0, -1.0, 40.0, 0.01])
def test_newton_finds_what_a_fine_grid_finds(turn):
    """Logits far too sharp, far too flat, or against the labels; the prior alone keeps the last."""
    data = problem(shots=40)
    logits = turn * 20 * data.x @ data.w.T
    found = math.log(best_temperature([(logits, data.y)]))
    grid = torch.linspace(math.log(0.02), math.log(20.0), 3000)
    losses = [
        float(F.cross_entropy(logits * u.exp(), data.y, reduction="sum") + 2 * u.square())
        for u in grid
    ]
    best = float(grid[min(range(len(grid)), key=lambda i: losses[i])])
    assert found == pytest.approx(best, abs=0.01)


class _Told(Fold):
    """A fold that says of each setting what the test says."""

    def __init__(self, y: Tensor, told: dict[float, Tensor]) -> None:
        self.y, self.owners, self.told, self.asked = y, y, told, []

    def judge(self, setting: Setting) -> tuple[Tensor, Tensor]:
        self.asked.append(setting.own)
        return self.told[setting.own], self.y


def test_a_race_climbs_and_leaves_out_what_is_surely_worse():
    y = torch.arange(20).repeat(5)
    signal = F.one_hot(y, 20).float()
    noise = torch.randn(100, 20, generator=torch.Generator().manual_seed(0))
    told = {own: noise + gain * signal for own, gain in ((1.0, 0), (2.0, 2), (3.0, 4))}
    uneven = torch.where(torch.arange(100) < 3, 8.0, 4.0)  # better by three images: not surely
    told[4.0] = noise + uneven[:, None] * signal
    later = {own: noise + gain * signal for own, gain in ((3.0, 6), (4.0, 1))}
    first, second = _Told(y, told), _Told(y, later)
    race = Race([first, second])
    settings = [Setting(False, own, 0.0) for own in sorted(told)]
    assert race.climb(settings, 1).own == 4.0
    assert first.asked == [2.0, 3.0, 4.0]  # 1.0 lies behind, each is asked once
    assert race.best().own == 3.0  # both folds together
    assert sorted(second.asked) == [3.0, 4.0]  # 2.0 was surely worse
    down = Race([_Told(y, {own: told[4 - own] for own in (1.0, 2.0, 3.0)})])
    assert down.climb(settings[:3], 2).own == 1.0


def test_enough_images_are_some_of_every_class():
    y = torch.arange(100).repeat(50)
    some = enough_images(y, 100)
    assert torch.bincount(y[some]).tolist() == [20] * 100
    assert enough_images(y[:2000], 100).all()


def test_a_solution_of_other_images_is_a_start_and_no_more():
    data = problem(shots=8)
    offset = 20 * data.x @ data.w.T
    few = torch.arange(len(data.x)) < 30
    setting = Setting(True, 5.0, 40.0)
    start = ConvexProblem(data.x[few], data.y[few], data.w, offset[few]).solve(setting, 1e-6)
    cold = ConvexProblem(data.x, data.y, data.w, offset).solve(setting, 1e-6)
    warm = ConvexProblem(data.x, data.y, data.w, offset).solve(setting, 1e-6, start=start)
    torch.testing.assert_close(warm.seen(data.x), cold.seen(data.x), atol=2e-2, rtol=2e-2)


def test_a_text_that_is_better_for_some_classes_alone_is_not_preferred():
    data = problem(shots=20, classes=20)
    described = data.w.clone()
    centres = unit(20, D, seed=0)
    described[:2] = centres[:2]  # two classes are described perfectly, the others not at all
    texts = replace(data.classes, described=described)
    few = replace(data, classes=texts)
    sure = DEFAULT.class_text
    assert choose_class_text(few, sure.model_copy(update={"doubt": 0.0}))[0].share > 0
    assert choose_class_text(few, sure.model_copy(update={"doubt": 3.0}))[0].share == 0
    better = replace(data.classes, described=F.normalize(centres + 0.3 * data.w, dim=-1))
    assert choose_class_text(replace(data, classes=better), sure)[0].share > 0


@pytest.mark.parametrize("classes", [C, 9])
def test_training_ends_with_the_same_bits(classes):
    data = problem(shots=4, classes=classes)
    first = fit(data, DEFAULT, 1).tensors()
    for _ in range(4):
        again = fit(data, DEFAULT, 1).tensors()
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_ranks_number_the_images_of_each_class():
    y = torch.tensor([2, 0, 2, 2, 0, 1])
    rank = rank_in_class(y, 0)
    for label, count in ((0, 2), (1, 1), (2, 3)):
        assert sorted(rank[y == label].tolist()) == list(range(count))
    assert not torch.equal(rank_in_class(y.repeat(9), 0), rank_in_class(y.repeat(9), 1))


def test_any_number_of_images_a_class_trains():
    """Classes of one, two and many images, as users have them."""
    data = problem(shots=6)
    keep = torch.cat([(data.y == c).nonzero()[: 1 + c, 0] for c in range(C)])
    uneven = replace(data, x=data.x[keep], y=data.y[keep], shots=1)
    logits = fit(uneven, DEFAULT, 0).logits(data.x, data.classes)
    assert torch.isfinite(logits).all()
    two = replace(data, classes=ClassSet(*[data.w[:2]] * 4, torch.arange(2)),
                  x=data.x[data.y < 2], y=data.y[data.y < 2], prompts=data.prompts[:2],
                  mask=data.mask[:2])  # fmt: skip
    assert torch.isfinite(fit(two, DEFAULT, 0).logits(data.x, two.classes)).all()


@pytest.mark.parametrize("shots", [1, 2, 4])
@pytest.mark.parametrize("wrong", [0.2, 1.5])
def test_never_far_below_zero_shot(shots, wrong):
    """On other images of the same classes; texts nearly right, and nearly useless."""
    many = problem(shots=60, classes=20, wrong=wrong, noise=0.8)
    few = replace(many, x=many.x[: 20 * shots], y=many.y[: 20 * shots], shots=shots)
    test_x, test_y = many.x[20 * shots :], many.y[20 * shots :]
    fitted = fit(few, controlled(DEFAULT, "no-class-text"), 0)
    right = (fitted.logits(test_x, few.classes).argmax(1) == test_y).float()
    plain = ((test_x @ few.w.T).argmax(1) == test_y).float()
    difference = right - plain
    error = float(difference.std()) / math.sqrt(len(difference))
    assert float(difference.mean()) >= -2 * error
    if wrong > 1:
        assert float(difference.mean()) > 0.02


def test_validation_images_decide_where_there_is_one_shot():
    data = problem(shots=9, classes=10, wrong=1.5)
    one = replace(data, x=data.x[:10], y=data.y[:10], shots=1)
    judged = replace(one, val_x=data.x[10:], val_y=data.y[10:])
    blind = fit_convex(one.x, one.y, one.w, one.scale, ConvexRecipe())
    found = fit_convex(
        judged.x, judged.y, judged.w, 20.0, ConvexRecipe(), judged.val_x, judged.val_y
    )
    assert found.chosen["seen"]["own"] in ConvexRecipe().own
    assert blind.chosen["seen"]["own"] not in ConvexRecipe().own
    choices = ConvexRecipe()
    losses = {}
    for whiten in choices.whiten:
        for own in choices.own:
            offset = found.sharpness * 20 * one.x @ one.w.T
            added = ConvexProblem(one.x, one.y, one.w, offset).solve(Setting(whiten, own, 0.0))
            logits = found.sharpness * 20 * judged.val_x @ one.w.T + added.seen(judged.val_x)
            logits = logits * best_temperature([(logits, judged.val_y)])
            losses[whiten, own] = float(F.cross_entropy(logits, judged.val_y))
    chosen = found.chosen["seen"]
    assert losses[chosen["whiten"], chosen["own"]] < min(losses.values()) + 0.01
    assert losses[chosen["whiten"], chosen["own"]] < max(losses.values())


def test_held_out_classes_open_the_map_where_images_and_texts_are_turned():
    classes = 60
    turn = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(4)))[0]
    texts = unit(classes, D, seed=0)
    y = torch.arange(classes).repeat(4)
    x = F.normalize((texts @ turn)[y] + 0.3 * unit(len(y), D, seed=2), dim=-1)
    seen = y < 40
    fitted = fit_convex(x[seen], y[seen], texts[:40], 20.0, ConvexRecipe())
    assert fitted.new is not None
    assert fitted.new_weight > 0.5
    new_x, new_y = x[~seen], y[~seen] - 40
    zero_shot = 20 * new_x @ texts[40:].T
    moved = fitted.sharpness * zero_shot + fitted.new_weight * fitted.new.new(new_x, texts[40:])
    assert (moved.argmax(1) == new_y).float().mean() > (
        zero_shot.argmax(1) == new_y
    ).float().mean() + 0.2
    # where they are not, the map may be used but must not harm
    x = x @ turn.T
    straight = fit_convex(x[seen], y[seen], texts[:40], 20.0, ConvexRecipe())
    kept = 20 * x[~seen] @ texts[40:].T
    mixed = straight.sharpness * kept
    if straight.new is not None:
        mixed += straight.new_weight * straight.new.new(x[~seen], texts[40:])
    mean = [float((logits.argmax(1) == new_y).float().mean()) for logits in (mixed, kept)]
    assert mean[0] >= mean[1] - 0.02


def test_the_weight_is_the_step_that_is_surely_good():
    y = torch.arange(20).repeat(5)
    guess = torch.randn(100, 20, generator=torch.Generator().manual_seed(0))
    guess += 2 * F.one_hot(y, 20)
    signal = 4 * F.one_hot(y, 20).float()

    def weight(added, doubt=1.0):
        return trusted([(guess, y)], [(guess + added, y)], y, 20, doubt)[0]

    assert weight(signal) == 1.0
    assert weight(-signal) == 0.0  # worse than zero-shot at any step
    assert weight(0 * signal) == 0.0
    # right for all but two classes, where it is so wrong that the whole step costs more than it
    # brings: a small step is good, and with doubt none
    mixed = signal.clone()
    mixed[y < 2] *= -3
    steps = [weight(mixed, doubt) for doubt in (0.0, 1.0, 100.0)]
    assert 0 < steps[0] < 1
    assert steps[2] == 0
    assert steps[2] <= steps[1] <= steps[0]


def test_class_texts_are_chosen_by_untrained_clip():
    data = problem(shots=20)
    choice, table = choose_class_text(data, DEFAULT.class_text)
    assert choice.share > 0
    for share, loss in table[choice.base].items():
        t = data.classes.text(ClassText(choice.base, float(share)))
        logits = data.scale * data.x @ t.T
        logits = logits * best_temperature([(logits, data.y)])
        assert loss == pytest.approx(float(F.cross_entropy(logits, data.y)), abs=1e-3)
    assert min(table[choice.base].values()) == table[choice.base][f"{choice.share:g}"]
    swapped = data.with_control("shuffled", 0)
    assert choose_class_text(swapped, DEFAULT.class_text)[0].share == 0
    without = replace(data.classes, prompted=torch.zeros(C, dtype=torch.bool))
    torch.testing.assert_close(without.text(ClassText("template", 0.5)), data.w)


def test_terms_add_up_to_the_logits_and_survive_saving():
    data = problem(classes=20)
    fitted = fit(data, DEFAULT, 0)
    both = ClassSet(
        *[torch.cat([data.w, unit(5, D, seed=9)])] * 4,
        torch.tensor([*range(20), -1, -1, -1, -1, -1]),
    )
    again = FittedAdapter.load(fitted.tensors(), fitted.config())
    for classes in (data.classes, both):
        logits = fitted.logits(data.x, classes)
        parts = fitted.contributions(data.x, classes)
        assert "zero-shot" in parts
        torch.testing.assert_close(torch.stack(list(parts.values())).sum(0), logits)
        torch.testing.assert_close(again.logits(data.x, classes), logits, rtol=0, atol=0)
    assert "group" in fitted.contributions(data.x, both)
    assert "group" not in fitted.contributions(data.x, data.classes)
    backwards = replace(data.classes, **{
        name: getattr(data.classes, name).flip(0)
        for name in ("template", "ensemble", "described", "seen")
    })  # fmt: skip
    torch.testing.assert_close(
        fitted.logits(data.x, backwards), fitted.logits(data.x, data.classes).flip(1)
    )


def test_controls_take_one_thing_away():
    data = problem(classes=20)
    names = {
        control: {term.name for term in fit(data, controlled(DEFAULT, control), 0).terms}
        for control in ("untrained", "no-shared-map", "no-own-weights")
    }
    assert names["untrained"] == {"zero-shot"}
    assert "shared map" not in names["no-shared-map"]
    assert not fit(data, controlled(DEFAULT, "no-class-text"), 0).class_text.share
    assert controlled(DEFAULT, "no-generator") == DEFAULT


def test_the_seed_of_the_folds_is_the_only_chance_there_is():
    data = problem()
    one, two = fit(data, DEFAULT, 3), fit(data, DEFAULT, 3)
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, two.tensors()[name]), name

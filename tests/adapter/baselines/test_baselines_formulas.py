"""Every baseline against the formulas of its paper, written the slow and obvious way."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import unit
from torch import Tensor

from aape.adapter.baselines import (
    BASELINES,
    GROUPS,
    choose_baselines,
    feature_adapters,
    gda,
    linear_probe,
    lp_plus_plus,
    tip_adapter,
)
from aape.adapter.baselines.base import with_seen
from aape.adapter.baselines.cache import cache_logits
from aape.adapter.method.choose import choose, product
from aape.adapter.method.discriminant import fit_discriminant, folds, out_of_fold_scores
from aape.adapter.method.problem import TEXT_NORM, ClassSet, FewShot
from aape.pipeline.errors import UserError

C, D, SHOTS = 5, 12, 6


def problem(validation: bool = True, spread: float = 0.9) -> FewShot:
    """Clusters around directions that the texts only roughly know."""
    centres = unit(C, D, seed=0)
    w = F.normalize(centres + 1.6 * unit(C, D, seed=1), dim=-1)

    def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(C).repeat(count)
        return F.normalize(centres[y] + spread * unit(len(y), D, seed=seed), dim=-1), y

    x, y = images(SHOTS, 2)
    val_x, val_y = images(4, 3) if validation else (x[:0], y[:0])
    classes = ClassSet(w, w, w, w, torch.arange(C))
    mask = torch.ones(C, 1, dtype=torch.bool)
    return FewShot(x, y, None, classes, w[:, None], mask, val_x, val_y, 30.0, SHOTS)


def new_classes() -> ClassSet:
    """The last trained class and two new ones."""
    w = torch.cat([problem().w[-1:], unit(2, D, seed=7)])
    return ClassSet(w, w, w, w, torch.tensor([C - 1, -1, -1]))


@pytest.mark.parametrize("name", GROUPS["all"])
def test_learns_and_leaves_new_classes_sensible(name):
    data = problem()
    predictor = BASELINES[name].fit(data, 0)
    seen = predictor.logits(data.x, data.classes)
    zero_shot = data.scale * data.x @ data.w.T
    assert seen.shape == zero_shot.shape
    assert not seen.requires_grad
    right = (seen.argmax(1) == data.y).float().mean()
    start = (zero_shot.argmax(1) == data.y).float().mean()
    assert right >= start
    # the ratio 0.2 of 3 units moves little, and a strong penalty holds long texts where they are
    if name not in [*GROUPS["fast"], "CLIP-Adapter", "CLAP"]:
        assert right > start + 0.05
    mixed = predictor.logits(data.x, new_classes())
    assert mixed.shape == (len(data.x), 3)
    if name not in ("CLIP-Adapter", "GDA, nearest images"):  # which touch every class
        torch.testing.assert_close(mixed[:, 1:], data.scale * data.x @ new_classes().template[1:].T)
        torch.testing.assert_close(mixed[:, 0], seen[:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in GROUPS["all"] if n not in GROUPS["fast"]])
def test_same_seed_same_result_and_no_validation_needed(name):
    data = problem(validation=False)
    once, again = (BASELINES[name].fit(data, 0).logits(data.x, data.classes) for _ in range(2))
    torch.testing.assert_close(once, again, rtol=0, atol=0)


def test_text_only_methods():
    data = problem()
    classes = ClassSet(*(unit(C, D, seed=s) for s in (1, 2, 3, 4)), torch.arange(C))
    texts = [classes.template, classes.ensemble, classes.described, classes.waffle]
    for name, text in zip(GROUPS["fast"], texts, strict=True):
        assert text is not None
        logits = BASELINES[name].fit(data, 0).logits(data.x, classes)
        torch.testing.assert_close(logits, data.scale * data.x @ text.T)


def test_cache_logits_one_by_one():
    data, beta = problem(), 5.5
    expected = torch.zeros(len(data.val_x), C)
    for i, x in enumerate(data.val_x):
        for key, label in zip(data.x, data.y):
            expected[i, label] += math.exp(-beta * (1 - float(x @ key)))
    found = cache_logits(data.val_x, data.x, data.y, C, beta)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_tip_adapter_uses_the_fixed_rule_without_validation():
    data = problem(validation=False)
    fitted = BASELINES["Tip-Adapter"].fit(data, 0)
    expected = data.scale * data.x @ data.w.T
    expected = expected + cache_logits(data.x, data.x, data.y, C, 5.5)
    torch.testing.assert_close(fitted.logits(data.x, data.classes), expected)
    assert fitted.chosen["alpha"] == 1.0


def test_tip_adapter_chooses_on_validation_images():
    data = problem()
    fitted = BASELINES["Tip-Adapter"].fit(data, 0)
    alpha, beta = fitted.chosen["alpha"], fitted.chosen["beta"]

    def score(a: float, b: float) -> float:
        logits = data.scale * data.val_x @ data.w.T
        logits = logits + a * cache_logits(data.val_x, data.x, data.y, C, b)
        return float((logits.argmax(1) == data.val_y).float().mean() * 100)

    best = max(score(a, b) for a, b in product(tip_adapter._ALPHAS, tip_adapter._BETAS))
    assert score(alpha, beta) == pytest.approx(best)
    assert fitted.chosen["validation accuracy"] == pytest.approx(best)


def test_clap_multipliers_by_hand():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    w = torch.eye(2)
    classes = ClassSet(w, w, w, None, torch.arange(2))
    data = replace(problem(), x=x, y=torch.tensor([0, 1, 1]), classes=classes, scale=math.log(3))
    # softmax of (log 3, 0) is (3/4, 1/4)
    torch.testing.assert_close(
        linear_probe.clap_multipliers(data), torch.tensor([0.75, (0.25 + 0.75) / 2])
    )
    moved = w + torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    value = linear_probe.penalty(moved, w, torch.tensor([0.75, 0.5]))
    assert float(value) == pytest.approx((0.75 * 4 + 0.5 * 1) / 2)


@pytest.mark.parametrize(("name", "penalised"), [("linear probe", False), ("CLAP", True)])
def test_probes_are_the_loop_of_their_authors(name, penalised):
    """SGD from the raw text vectors: an epoch of 1e-5, then a cosine by epoch (300 in all)."""
    data = replace(problem(), text_norms=torch.linspace(8, 12, C))
    weight = (data.w * torch.linspace(8, 12, C)[:, None]).requires_grad_()
    start, velocity = weight.detach().clone(), torch.zeros_like(weight)
    multipliers = linear_probe.clap_multipliers(data)
    for epoch in range(300):
        rate = 1e-5 if epoch == 0 else 0.1 * (1 + math.cos(math.pi * (epoch - 1) / 300)) / 2
        logits = data.scale * data.x @ (weight / weight.norm(dim=1, keepdim=True)).T
        loss = F.cross_entropy(logits, data.y)
        if penalised:
            loss = (
                loss
                + torch.stack(
                    [m * (w - s).square().sum() for m, w, s in zip(multipliers, weight, start)]
                ).mean()
            )
        (slope,) = torch.autograd.grad(loss, [weight])
        velocity = 0.9 * velocity + slope
        weight = (weight - rate * velocity).detach().requires_grad_()
    expected = data.scale * data.x @ F.normalize(weight.detach(), dim=1).T
    found = BASELINES[name].fit(data, 0).logits(data.x, data.classes)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_text_vectors_keep_their_length_or_get_the_usual_one():
    data = problem()
    torch.testing.assert_close(data.raw_w.norm(dim=1), torch.full((C,), TEXT_NORM))
    known = replace(data, text_norms=torch.arange(1.0, C + 1))
    torch.testing.assert_close(known.raw_w.norm(dim=1), torch.arange(1.0, C + 1))


def test_clap_stays_closer_to_the_text_than_the_probe():
    data = problem()

    def logits(name: str) -> Tensor:
        return BASELINES[name].fit(data, 0).logits(data.w, data.classes)

    at_text = data.scale * data.w @ data.w.T
    assert (logits("CLAP") - at_text).norm() < (logits("linear probe") - at_text).norm()


def test_clip_adapter_formula():
    x, inner, outer = unit(1, 2, seed=0), torch.eye(2), torch.tensor([[1.0, 1.0], [-1.0, 0.0]])
    hidden = [max(float(v), 0) for v in x[0]]
    out = [max(hidden[0] + hidden[1], 0), max(-hidden[0], 0)]
    mixed = np.array([0.2 * o + 0.8 * float(v) for o, v in zip(out, x[0])])
    found = feature_adapters.adapt(x, inner, outer, 0.2)
    np.testing.assert_allclose(found[0].numpy(), mixed / np.linalg.norm(mixed), rtol=1e-5)


def test_discriminant_equals_the_paper():
    data = problem()
    x, y = data.x.double(), data.y
    means = torch.stack([x[y == i].mean(0) for i in range(C)])
    centred = torch.cat([x[y == i] - means[i] for i in range(C)])
    cov = centred.T.cov()
    n, d = x.shape
    precision = d * torch.linalg.pinv((n - 1) * cov + cov.trace() * torch.eye(d).double())
    weight = means @ precision
    bias = -0.5 * torch.einsum("cd,de,ce->c", means, precision, means)
    expected = x @ weight.T + bias
    found = fit_discriminant(data.x, y, C)(data.x).double()
    # ours are relative to the average image: the same up to one number an image
    difference = found - expected
    spread = difference - difference.mean(1, keepdim=True)
    assert spread.abs().max() < 1e-3 * expected.abs().max()
    average = x.mean(0)
    reference = expected[0] - x[0] @ precision @ average + 0.5 * average @ precision @ average
    torch.testing.assert_close(found[0], reference, rtol=1e-3, atol=1e-3)


def test_classifiers_of_new_classes_equal_the_reference_code():
    """As main_base2new.py of the authors computes them, a class at a time, with full inverses."""
    x, w = unit(100, D, seed=3).double(), unit(4, D, seed=4).double()
    k = 64
    mus, inverses = [], []
    for text in w:
        nearest = x[torch.topk(text @ x.T, k=k)[1]]
        mus.append(torch.cat([nearest, text[None].repeat(16, 1)]).mean(0))
        cov = (nearest - text).T @ (nearest - text) / (k - 1)
        inverses.append(D * torch.linalg.pinv((k - 1) * cov + cov.trace() * torch.eye(D).double()))
    mu, precision = torch.stack(mus), torch.stack(inverses).mean(0)
    images = unit(9, D, seed=5).double()
    expected = images @ (mu @ precision).T - torch.einsum("nd,dc,nc->n", mu, precision, mu) / 2
    found = gda.synthesise(x.float(), w.float())(images.float()).double()
    shift = (expected - found).mean(1, keepdim=True)  # scores are relative to the average image
    torch.testing.assert_close(found + shift, expected, atol=1e-4, rtol=1e-4)


def test_discriminant_with_one_image_a_class_is_nearest_mean():
    x, y = unit(C, D, seed=5), torch.arange(C)
    assert (fit_discriminant(x, y, C)(x).argmax(1) == y).all()


def test_folds_hold_out_every_image_once():
    y = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    fold = folds(y, 3)
    assert sorted(fold[:3].tolist()) == [0, 1, 2]
    data = problem()
    scores = out_of_fold_scores(data.x, data.y, C, 3)
    part = folds(data.y, 3)
    held = part == 1
    expected = fit_discriminant(data.x[~held], data.y[~held], C)(data.x[held])
    torch.testing.assert_close(scores[held], expected)


def test_lp_plus_plus_start_and_steps():
    data = problem()
    weight, alpha = lp_plus_plus.start(data.x, data.y, data.w)
    for i in range(C):
        torch.testing.assert_close(weight[i], data.x[data.y == i].sum(0))
    own = [float((data.x[data.y == i] @ data.w[i]).mean()) for i in range(C)]
    torch.testing.assert_close(alpha, torch.full((C,), 250 * sum(own) / C))
    rate, rate_alpha = lp_plus_plus.step_sizes(data.x, data.w)
    singular = torch.linalg.svdvals(data.x)[0]
    assert rate == pytest.approx(float(4 * len(data.x) / singular**2), rel=1e-4)
    worst = max(float((data.x @ t).square().sum()) for t in data.w)
    assert rate_alpha == pytest.approx(len(data.x) / (4 * worst), rel=1e-4)


def test_with_seen_keeps_the_order_of_the_question():
    zero_shot = torch.zeros(1, 3)
    classes = ClassSet(*[torch.zeros(3, 2)] * 4, torch.tensor([1, -1, 0]))
    found = with_seen(zero_shot, torch.tensor([[10.0, 20.0]]), classes)
    assert found.tolist() == [[20.0, 0.0, 10.0]]


def test_choice_prefers_accuracy_then_likelihood_then_the_fallback():
    y = torch.tensor([0, 1])
    logits = {
        "wrong": torch.tensor([[0.0, 1.0], [0.0, 1.0]]),
        "timid": torch.tensor([[0.1, 0.0], [0.0, 0.1]]),
        "sure": torch.tensor([[5.0, 0.0], [0.0, 5.0]]),
    }
    assert choose(list(logits), logits.__getitem__, y, "none") == ("sure", 100.0)
    assert choose(list(logits), logits.__getitem__, y[:0], "none")[0] == "none"
    assert product([1, 2], [3, 4]) == [(1, 3), (1, 4), (2, 3), (2, 4)]


def test_unknown_baseline_names_the_nearest_and_lists_the_ids():
    with pytest.raises(UserError, match="Did you mean 'clap'") as error:
        choose_baselines(["CLAPP"])
    assert "gda-nearest" in str(error.value)
    assert [b.name for b in choose_baselines(["GDA", "none"])] == ["GDA"]


def test_every_baseline_can_be_chosen_by_id_and_by_printed_name():
    ids = [baseline.id for baseline in BASELINES.values()]
    assert len(set(ids)) == len(ids)
    for baseline in BASELINES.values():
        assert re.fullmatch(r"[a-z0-9+-]+", baseline.id)
        for word in (baseline.id, baseline.id.upper(), baseline.name, baseline.name.upper()):
            # a comma-separated option splits the name that has a comma
            assert choose_baselines([part.strip() for part in word.split(",")]) == [baseline]
    assert [b.id for b in choose_baselines(["gda", "nearest images", "GDA"])] == [
        "gda-nearest",
        "gda",
    ]


def test_best_epoch_of_tip_adapter_f_is_by_validation_images():
    fitted = BASELINES["Tip-Adapter-F"].fit(problem(), 0)
    assert fitted.chosen["alpha of training"] in tip_adapter._START_ALPHAS
    assert "alpha of training" not in BASELINES["Tip-Adapter-F"].fit(problem(False), 0).chosen

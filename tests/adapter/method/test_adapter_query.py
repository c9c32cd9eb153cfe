"""The AAPE as the query: its closed form, and what held-out classes choose."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from fakes import unit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aape.adapter.method.hold_out import Trust, candidates, distil_query
from aape.adapter.method.problem import ClassSet, FewShot
from aape.adapter.method.query import fit_query
from aape.adapter.method.recipe import LITERAL, STAGED, QueryRecipe, controlled
from aape.adapter.method.train import fit

C, D, SHOTS = 12, 24, 8
QUICK = STAGED.model_copy(update={"epochs": 2, "batch_size": 32})


def turned(noise: float = 0.3) -> tuple[FewShot, FewShot]:
    """Images that are the texts, turned by one rotation: classes to train on, and other ones."""
    rotation, _ = torch.linalg.qr(unit(D, D, seed=0).double())
    w = unit(2 * C, D, seed=1)
    prompts = F.normalize(w[:, None] + 0.2 * unit(2 * C, 4, D, seed=2), dim=-1)
    y = torch.arange(2 * C).repeat(SHOTS)
    x = F.normalize(w[y] @ rotation.float() + noise * unit(len(y), D, seed=3), dim=-1)

    def part(first: int) -> FewShot:
        ids, rows = slice(first, first + C), (y >= first) & (y < first + C)
        texts = ClassSet(w[ids], w[ids], w[ids], None, torch.arange(C))
        mask = torch.ones(C, 4, dtype=torch.bool)
        none, no_labels = x[:0], y[:0]
        return FewShot(
            x[rows], y[rows] - first, None, texts, prompts[ids], mask, none, no_labels, 20.0, SHOTS
        )

    return part(0), part(C)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 9), d=st.integers(2, 9), penalty=st.floats(0.01, 10.0), seed=st.integers(0, 99)
)
def test_the_closed_form_has_no_gradient(n, d, penalty, seed):
    x, target, w = (
        unit(n, d, seed=seed),
        unit(n, d, seed=seed + 1),
        unit(3, d, seed=seed + 2),
    )
    query = fit_query(x, target, w, penalty)
    matrix = query.matrix.double().requires_grad_()
    centred = (x - x.mean(0)).double()
    mu = penalty * centred.square().sum(1).mean()
    loss = (centred @ matrix - (target - target.mean(0)).double()).square().sum()
    loss = loss + mu * (matrix - torch.eye(d, dtype=torch.float64)).square().sum()
    (gradient,) = torch.autograd.grad(loss, matrix)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-4, rtol=0)


def test_a_large_penalty_leaves_images_as_they_are():
    data, _ = turned()
    query = fit_query(data.x, data.w[data.y], data.w, 1e6)
    torch.testing.assert_close(query.matrix, torch.eye(D), atol=1e-4, rtol=0)
    centred = F.normalize(data.x - data.x.mean(0), dim=-1)
    expected = centred @ F.normalize(data.w - data.w.mean(0), dim=-1).T
    torch.testing.assert_close(query(data.x, data.w), expected, atol=1e-4, rtol=0)


def accuracy(logits: Tensor, y: Tensor) -> float:
    return float((logits.argmax(1) == y).float().mean() * 100)


def test_what_images_of_seen_classes_show_serves_new_ones():
    seen, new = turned()
    unknown = replace(new.classes, seen=torch.full((C,), -1))
    fitted = fit(seen, QUICK, 0)
    assert fitted.facts["trust"]["query"] > 0
    assert fitted.chosen["held-out accuracy"] > 100 / C
    plain = accuracy(new.x @ new.w.T, new.y)
    assert accuracy(fitted.logits(new.x, unknown), new.y) > plain + 20
    without = fit(seen, controlled(QUICK, "no-query"), 0)
    assert accuracy(without.logits(new.x, unknown), new.y) < plain + 20


def test_prompts_of_other_classes_harm_and_held_out_classes_refuse_them():
    seen, new = turned()
    unknown = replace(new.classes, seen=torch.full((C,), -1))
    shuffled = seen.with_control("shuffled", 0)
    trusting = QUICK.model_copy(update={"hold_out": 0, "query": QueryRecipe(weights=[1.0])})
    right, wrong = (
        accuracy(fit(data, trusting, 0).logits(new.x, unknown), new.y) for data in (seen, shuffled)
    )
    assert right > wrong + 10
    assert fit(shuffled, QUICK, 0).facts["trust"]["blend"] == 0


def test_candidates_are_what_the_recipe_lists():
    assert candidates(LITERAL)[0] == Trust()
    query = QueryRecipe(weights=[0.0, 0.5], blends=[1.0, 0.0], penalties=[10])
    recipe = STAGED.model_copy(update={"trusts": [1.0, 0.0], "query": query})
    assert candidates(recipe) == [
        Trust(1.0, 0.0, 1.0, 10), Trust(1.0, 0.5, 1.0, 10), Trust(1.0, 0.5, 0.0, 10),
        Trust(0.0, 0.0, 1.0, 10), Trust(0.0, 0.5, 1.0, 10), Trust(0.0, 0.5, 0.0, 10),
    ]  # fmt: skip
    silent = candidates(controlled(recipe, "no-distillation"))
    assert silent == [Trust(1.0, 0.0, 1.0, 10), Trust(0.0, 0.0, 1.0, 10)]


def test_the_blend_goes_from_class_text_to_prompts():
    seen, _ = turned()
    target = unit(len(seen.x), D, seed=9)
    for blend, expected in ((0.0, seen.w[seen.y]), (1.0, target)):
        found = distil_query(seen, target, Trust(blend=blend, penalty=2.0))
        direct = fit_query(seen.x, expected, seen.w, 2.0)
        torch.testing.assert_close(found.matrix, direct.matrix)


def test_a_fixed_weight_needs_no_held_out_classes():
    seen, _ = turned()
    fixed = QUICK.model_copy(
        update={"hold_out": 0, "query": QueryRecipe(weights=[0.5], penalties=[10.0])}
    )
    fitted = fit(seen, fixed, 0)
    assert fitted.facts["trust"] == asdict(Trust(1.0, 0.5, 1.0, 10.0))
    assert fitted.term("query") is not None


@pytest.mark.parametrize("weights", [[], ["many"]])
def test_weights_must_be_numbers(weights):
    with pytest.raises(ValueError, match="weights"):
        QueryRecipe(weights=weights)

"""The model: fast paths equal the obvious ones, starting points are what they claim to be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fakes import unit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aape.adapter.method import model
from aape.adapter.method.model import (
    Adapter,
    Aggregator,
    Generator,
    Head,
    clip_score,
    contrastive_loss,
    distillation_loss,
    keeps_all_activations,
)
from aape.adapter.method.recipe import STAGED


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """Give every parameter a random value, also those that start at zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return module


@settings(max_examples=60, deadline=None)
@given(
    b=st.integers(1, 9),
    c=st.integers(1, 11),
    d=st.integers(3, 37),
    r=st.integers(1, 9),
    residual=st.booleans(),
    generator=st.booleans(),
    seed=st.integers(0, 99),
)
def test_low_rank_logits_equal_the_definition(b, c, d, r, residual, generator, seed):
    head = randomised(Head(d, r, residual, generator), seed)
    x, w, h = (
        unit(b, d, seed=seed),
        unit(c, d, seed=seed + 1),
        unit(b, d, seed=seed + 2),
    )
    naive = F.cosine_similarity(x[:, None], head.weights(w, h), dim=-1)
    torch.testing.assert_close(head(x, w, h), naive, atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(head(x, w, h), naive, atol=1e-5, rtol=0)


def test_chunks_change_neither_logits_nor_gradients(monkeypatch):
    head = randomised(Head(17, 5, residual=True), 3)
    x, w, h = (
        unit(7, 17),
        unit(13, 17, seed=1),
        unit(7, 17, seed=2).requires_grad_(),
    )

    def both() -> list[Tensor]:
        with torch.no_grad():
            inference = head(x, w, h)
        logits = head(x, w, h)
        gradients = torch.autograd.grad(logits.square().sum(), [h, *head.parameters()])
        return [inference, logits, *gradients]

    whole = both()
    monkeypatch.setattr(model, "_TRAINING_ELEMENTS", 7 * 5 * 4)  # four classes at a time
    monkeypatch.setattr(model, "_INFERENCE_ELEMENTS", 13 * 5 * 3)  # three images at a time
    for once, chunked in zip(whole, both(), strict=True):
        torch.testing.assert_close(once, chunked, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("elements", "classes", "images"),
    [(7 * 5 * 4, [4, 4, 4, 1], [2, 2, 2, 1]), (1, [1] * 13, [1] * 7), (10**6, [13], [7])],
)
def test_chunks_are_as_large_as_memory_allows(elements, classes, images, monkeypatch):
    """Of (b, c', r) hidden units: some classes of all images in training, else some images."""
    held: list[torch.Size] = []
    cosines = model._cosines

    def note(dot: Tensor, *rest: Tensor) -> Tensor:
        held.append(dot.shape)
        return cosines(dot, *rest)

    monkeypatch.setattr(model, "_cosines", note)
    monkeypatch.setattr(model, "_TRAINING_ELEMENTS", elements)
    monkeypatch.setattr(model, "_INFERENCE_ELEMENTS", elements)
    head = randomised(Head(17, 5, residual=True), 3)
    x, w, h = unit(7, 17), unit(13, 17, seed=1), unit(7, 17, seed=2)
    head(x, w, h)
    assert held == [(7, some) for some in classes]
    held.clear()
    with torch.no_grad():
        head(x, w, h)
    assert held == [(some, 13) for some in images]


def test_weights_of_length_zero_have_no_cosine_rather_than_nan():
    head = Head(8, 3)
    for parameter in head.parameters():
        parameter.data.zero_()
    x, w = unit(4, 8), unit(5, 8, seed=1)
    assert torch.equal(head(x, w, x), torch.zeros(4, 5))


def test_a_head_goes_without_a_prompt():
    head = randomised(Head(8, 3, residual=True), 1)
    x, w = unit(4, 8), unit(5, 8, seed=1)
    expected = F.cosine_similarity(x[:, None], head.weights(w, None), dim=-1)
    torch.testing.assert_close(head(x, w, None), expected)


def test_a_skip_moves_the_image_by_the_gap_of_the_means():
    x, w = unit(5, 16), unit(7, 16, seed=1)
    generator = Generator(16, 8, True, w.mean(0), x.mean(0), skip=True)
    torch.testing.assert_close(generator(x), x - x.mean(0) + w.mean(0))


def test_queries_start_as_they_say():
    torch.manual_seed(0)
    assert float(Aggregator(400, query="free").offset.detach().norm()) == pytest.approx(1, abs=0.15)
    assert not Aggregator(16, query="literal").offset.any()
    by_image = Aggregator(16, query="image")
    assert not by_image.offset.any()
    assert not by_image.from_image.weight.any()
    with pytest.raises(ValueError, match="needs x"):
        by_image(unit(4, 6, 16), torch.ones(4, 6, dtype=torch.bool))


def test_no_tensor_of_b_c_d_is_made():
    head, b, c, d = randomised(Head(64, 4, residual=True), 0), 30, 20, 64
    shapes: list[tuple[int, ...]] = []

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            shapes.extend(tuple(t.shape) for t in [out] if isinstance(t, Tensor))
            return out

    with Record():
        head(unit(b, d), unit(c, d), unit(b, d))
    assert max(torch.Size(shape).numel() for shape in shapes) == b * c * 4


def test_residual_head_and_generator_start_at_zero_shot():
    x, w = unit(5, 16), unit(7, 16, seed=1)
    generator = Generator(16, 8, residual=True, mean_text=w.mean(0), mean_image=x.mean(0))
    torch.testing.assert_close(generator(x), w.mean(0).expand(5, 16))
    torch.testing.assert_close(
        Head(16, 4, residual=True)(x, w, generator(x)), x @ w.T, atol=1e-6, rtol=0
    )


def test_literal_head_forgets_the_text():
    x, w = unit(40, 64), unit(30, 64, seed=1)
    cosines = Head(64, 16)(x, w, x)
    agreement = (cosines.argmax(1) == (x @ w.T).argmax(1)).float().mean()
    assert agreement < 0.5  # why the residual exists: this start knows nothing of CLIP's classifier


def test_parameters_are_those_of_the_paper():
    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    generator, head = Generator(512, 32), Head(512, 32)
    assert round(count(generator) / 1000) == 33
    assert round((count(generator) + count(head)) / 1000) in (82, 83)


@pytest.mark.parametrize("query", ["literal", "free", "image"])
def test_attention_equals_the_standard_layer(query):
    n, k, d = 6, 5, 24
    aggregator = Aggregator(d, query=query, heads=4, ffn=10)
    randomised(aggregator, 1)
    p, x = unit(n, k, d), unit(n, d, seed=4)
    mask = torch.arange(k) < torch.tensor([5, 1, 3, 2, 4, 5])[:, None]
    p = p * mask[..., None]
    mean = F.normalize(p.sum(1), dim=-1)
    start = {
        "literal": mean + aggregator.offset,
        "free": aggregator.offset.expand(n, d),
        "image": mean + aggregator.offset + x @ aggregator.from_image.weight.T
        if query == "image"
        else mean,
    }[query]
    tokens = torch.cat([start[:, None], p], 1)
    padded = torch.cat([torch.zeros(n, 1, dtype=torch.bool), ~mask], 1)
    # a standard layer attends from the query to itself too; ours attends to [p̄ + offset, P]
    expected = aggregator.layer(tokens, src_key_padding_mask=padded)[:, 0]
    torch.testing.assert_close(
        aggregator(p, mask, x), F.normalize(expected, dim=-1), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("kind", ["attention", "mean", "random", "mlp"])
def test_padding_is_never_read(kind):
    torch.manual_seed(0)
    aggregator = Aggregator(12, kind, heads=3)
    p, mask = unit(4, 6, 12), torch.arange(6).expand(4, 6) < 3
    torch.manual_seed(1)
    once = aggregator(p * mask[..., None], mask)
    torch.manual_seed(1)
    short = aggregator(p[:, :3], mask[:, :3])
    if kind != "random":
        torch.testing.assert_close(once, short, atol=1e-6, rtol=0)
    torch.testing.assert_close(once.norm(dim=-1), torch.ones(4))
    if kind == "random":
        distance = (once[:, None] - p[:, :3]).norm(dim=-1).min(1).values
        assert distance.max() < 1e-6


@pytest.mark.parametrize("kind", ["attention", "mlp"])
def test_identity_starts_at_the_mean_prompt_and_learns(kind):
    p, mask = unit(4, 6, 12), torch.ones(4, 6, dtype=torch.bool)
    aggregator = Aggregator(12, kind, heads=3, identity=True)
    out = aggregator(p, mask)
    torch.testing.assert_close(out, F.normalize(p.mean(1), dim=-1))
    clip_score(unit(4, 12, seed=9), out).backward()
    assert aggregator.scale.grad is not None
    assert aggregator.scale.grad.abs().sum() > 0


def test_distances_are_summed_over_the_width_and_averaged_over_the_batch():
    h, target = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0]]), torch.zeros(2, 3)
    assert distillation_loss(h, target) == pytest.approx((14 + 1) / 2)


@pytest.mark.parametrize("normalise", [True, False])
def test_the_prompt_embedding_enters_the_head_as_the_recipe_says(normalise):
    recipe = STAGED.model_copy(update={"normalise_h": normalise})
    adapter = randomised(Adapter(recipe, unit(16, seed=3), unit(7, 16, seed=1), 20.0), 2)
    x, w, h = unit(5, 16), unit(7, 16, seed=1), 3 * unit(5, 16, seed=4)
    given = F.normalize(h, dim=-1) if normalise else h
    expected = 20 * F.cosine_similarity(x[:, None], adapter.head.weights(w, given), dim=-1)
    torch.testing.assert_close(adapter.general(x, w, h), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("ffn", "width"), [(0, 12), (10, 10)])
def test_the_layer_of_the_aggregator_is_as_wide_as_asked(ffn, width):
    """As wide as the embedding, where nothing is said."""
    assert Aggregator(12, heads=3, ffn=ffn).layer.linear1.out_features == width
    assert Aggregator(12, "mlp", ffn=ffn).layer[0].out_features == width


def test_a_step_holds_128_megabytes_of_hidden_units():
    """2²⁵ floats of 4 bytes: 1,024 images × 1,024 classes × 32 units, and not one class more."""
    assert keeps_all_activations(1024, 1024, 32)
    assert not keeps_all_activations(1024, 1025, 32)
    assert keeps_all_activations(1 << 30, 1, 32)  # one class at least


def test_losses_by_hand():
    h, target = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert distillation_loss(h, target) == pytest.approx((5 + 25) / 2)
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    p = torch.tensor([[3.0, 4.0], [-1.0, 0.0]])
    assert clip_score(x, p) == pytest.approx(2.5 * (0.6 + 0.0) / 2)
    pairs = torch.eye(2)
    expected = torch.log(1 + torch.exp(torch.tensor(-3.0)))  # each row: [3, 0] or [0, 3]
    assert contrastive_loss(pairs, pairs, 3.0) == pytest.approx(float(expected))

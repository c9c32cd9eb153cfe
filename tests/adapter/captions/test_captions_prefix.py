"""The prefix and the decoding: equal to the plain model, whatever the batch; exact resume."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_captions import tiny_lm

from aape.adapter.captions import decode
from aape.adapter.captions.decode import answer, generate, rank_answers
from aape.adapter.captions.lm import FrozenLM
from aape.adapter.captions.prefix import Prefix, PrefixInputs, pool_tokens
from aape.adapter.captions.prefix_training import (
    Example,
    prefix_loss,
    target_embeddings,
    train_prefix,
)
from aape.adapter.captions.settings import KINDS, DecodeConfig, Kind, PrefixConfig
from aape.pipeline.errors import UserError


@pytest.fixture(scope="module")
def lm() -> FrozenLM:
    return tiny_lm()


@pytest.fixture
def contexts(lm: FrozenLM) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, lm.width, generator=generator) for n in (3, 7, 5, 7, 2)]


def full_scores(lm: FrozenLM, context: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Log-probabilities (len(ids), v) of a plain forward pass without cache or padding."""
    embeds = torch.cat([context, lm.embed(ids)])[None]
    with torch.no_grad():
        logits = lm.model(inputs_embeds=embeds).logits[0].float()
    return logits[len(context) - 1 : len(context) - 1 + len(ids)].log_softmax(-1)


def test_loss_equals_the_plain_model(lm: FrozenLM) -> None:
    prefix = torch.randn(3, 2, lm.width)
    prompts, targets = [[], [5, 6, 7], [8]], [[9, 10, 2], [11, 2], [12]]
    losses = []
    for row in range(3):
        ids = prompts[row] + targets[row]
        scores = full_scores(lm, prefix[row], ids)[len(prompts[row]) :]
        losses += [-float(scores[i, token]) for i, token in enumerate(targets[row])]
    ours = prefix_loss(lm, prefix, prompts, targets)
    assert float(ours) == pytest.approx(float(np.mean(losses)), rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_greedy_equals_the_plain_model(
    lm: FrozenLM, contexts: list[torch.Tensor], batch_size: int
) -> None:
    config = DecodeConfig(max_tokens=6, batch_size=batch_size)
    for context, (text, ended) in zip(contexts, generate(lm, contexts, config)):
        ids: list[int] = []
        while len(ids) < 6 and not (ids and ids[-1] in lm.stops):
            ids.append(int(full_scores(lm, context, [*ids, 0])[-1].argmax()))
        assert ended == (ids[-1] in lm.stops)
        assert text == lm.tokenizer.decode(ids[:-1] if ended else ids)


def test_a_wide_beam_finds_the_best_text(lm: FrozenLM, contexts: list[torch.Tensor]) -> None:
    """With as many beams as tokens a search over two tokens is exhaustive."""
    v = lm.embedding.shape[0]
    config = DecodeConfig(strategy="beam", beams=v, max_tokens=2, length_penalty=1.0)
    for context, (text, _) in zip(contexts, generate(lm, contexts, config)):
        scores = {}
        for first in range(v):
            table = full_scores(lm, context, [first, 0])
            if first in lm.stops:
                scores[(first,)] = float(table[0, first])
                continue
            for second in range(v):
                scores[first, second] = float(table[0, first] + table[1, second]) / 2
        best = max(scores, key=lambda ids: scores[ids])
        ids = list(best[:-1] if best[-1] in lm.stops else best)
        assert text == lm.tokenizer.decode(ids)


def test_ranking_equals_the_plain_model(lm: FrozenLM, contexts: list[torch.Tensor]) -> None:
    answers = ["a", "b c", "c a b", "b"]
    table = rank_answers(lm, contexts, answers, batch_size=2)
    for row, column in itertools.product(range(len(contexts)), range(len(answers))):
        ids = lm.ids(" " + answers[column])
        scores = full_scores(lm, contexts[row], ids)
        expected = sum(float(scores[i, token]) for i, token in enumerate(ids))
        assert float(table[row, column]) == pytest.approx(expected, rel=1e-4)
    both = answer(lm, contexts, DecodeConfig(max_tokens=3), answers)
    assert [choice for _, _, choice in both] == table.argmax(1).tolist()
    assert [(t, e) for t, e, _ in both] == generate(lm, contexts, DecodeConfig(max_tokens=3))


def test_the_likeliest_of_a_long_list_is_found_without_running_all(
    lm: FrozenLM, contexts: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["a", "b", "c", "red", "green", "blue", "field"]
    answers = [" ".join(pair) for pair in itertools.product(words, repeat=2)] + words[:2]
    table = rank_answers(lm, contexts, answers)
    calls: list[int] = []
    advance = decode._advance

    def watch(lm_, tokens, cache, mask):
        calls.append(len(tokens))
        return advance(lm_, tokens, cache, mask)

    monkeypatch.setattr(decode, "_advance", watch)
    found = answer(lm, contexts, DecodeConfig(max_tokens=1), answers)
    assert [choice for _, _, choice in found] == table.argmax(1).tolist()
    assert sum(calls) < len(contexts) * len(answers) / 2  # texts run, against all of them
    only_long = answer(lm, contexts, DecodeConfig(max_tokens=1), answers[:3])
    assert [choice for _, _, choice in only_long] == table[:, :3].argmax(1).tolist()


def test_sampling_follows_the_seed(lm: FrozenLM, contexts: list[torch.Tensor]) -> None:
    config = DecodeConfig(strategy="sample", max_tokens=8, seed=1)
    first = generate(lm, contexts, config)
    assert first == generate(lm, contexts, config)
    assert first != generate(lm, contexts, config.model_copy(update={"seed": 2}))
    narrow = config.model_copy(update={"top_p": 1e-6})
    assert generate(lm, contexts, narrow) == generate(lm, contexts, DecodeConfig(max_tokens=8))


def test_texts_that_never_stop_are_cut(lm: FrozenLM, contexts: list[torch.Tensor]) -> None:
    stops, lm.stops = lm.stops, set()
    try:
        for text, ended in generate(lm, contexts, DecodeConfig(max_tokens=4)):
            assert not ended
            assert len(text.split()) <= 4
    finally:
        lm.stops = stops


def test_a_start_token_goes_first(
    lm: FrozenLM, contexts: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, config = lm.embed([2]), DecodeConfig(max_tokens=4)
    by_hand = generate(lm, [torch.cat([start, context]) for context in contexts], config)
    prefix = torch.randn(1, 3, lm.width)
    loss = prefix_loss(lm, torch.cat([start[None], prefix], 1), [[4]], [[5, 6]])
    monkeypatch.setattr(lm, "start", start)
    assert generate(lm, contexts, config) == by_hand
    torch.testing.assert_close(prefix_loss(lm, prefix, [[4]], [[5, 6]]), loss)


def test_too_long_is_named(lm: FrozenLM) -> None:
    long = [torch.zeros(lm.context, lm.width)]
    with pytest.raises(UserError, match=f"needs {lm.context + 24} positions"):
        generate(lm, long, DecodeConfig())
    inputs = PrefixInputs(torch.zeros(1, 1, 3), torch.zeros(1, 4), torch.zeros(1, 4))
    prefix = Prefix("both", (1, 3), 4, lm.width, lm.scale)
    with pytest.raises(UserError, match="smaller grid"):
        train_prefix(lm, prefix, inputs, [Example(0, "a " * 99, "b")], PrefixConfig(), seed=1)
    with pytest.raises(UserError, match="nothing to train"):
        train_prefix(lm, prefix, inputs, [], PrefixConfig(), seed=1)


def test_pooling_by_hand() -> None:
    tokens = np.arange(16, dtype=np.float16).reshape(1, 16, 1)
    assert pool_tokens(tokens, 2)[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_tokens(tokens, 1)[0, :, 0].tolist() == [7.5]
    with_class = np.concatenate([np.full((1, 1, 1), 99, np.float16), tokens], 1)
    assert torch.equal(pool_tokens(with_class, 2), pool_tokens(tokens, 2))
    assert pool_tokens(tokens[:, :6], 1).shape == (1, 1, 1)  # not square: along the length


def test_targets_weigh_rare_words(lm: FrozenLM) -> None:
    examples = [Example(0, "", "a b"), Example(1, "", "a c"), Example(2, "", "a c")]
    goal = target_embeddings(lm, examples, 4)
    a, b = (lm.embed(lm.ids(letter))[0] for letter in "ab")
    weight_a, weight_b = np.log(2), np.log(4)
    expected = (weight_a * a + weight_b * b) / (weight_a + weight_b)
    torch.testing.assert_close(goal[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(goal[3], goal[:3].mean(0))  # no text: the mean of the others


def problem(lm: FrozenLM) -> tuple[PrefixInputs, list[Example]]:
    """Twelve images of three kinds; the kind decides the text."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.arange(12) % 3
    centres = torch.randn(3, 8, generator=generator)
    h = centres[kinds] + 0.05 * torch.randn(12, 8, generator=generator)
    tokens = F.normalize(h)[:, None].repeat(1, 2, 1)
    texts = ["red", "green", "blue"]
    return PrefixInputs(tokens, h, -h), [Example(i, "", texts[int(k)]) for i, k in enumerate(kinds)]


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("kind", ["none", "image", "x", "aape", "both"])
def test_the_image_is_learned_through_either_map(lm: FrozenLM, kind: Kind, slots: int) -> None:
    inputs, examples = problem(lm)
    torch.manual_seed(0)
    prefix = Prefix(kind, (2, 8), 8, lm.width, lm.scale, slots)
    assert prefix(inputs).shape == (12, 2 + slots, lm.width)  # as many for every kind
    config = PrefixConfig(steps=80, lr=0.03, batch_size=12)
    losses = train_prefix(lm, prefix, inputs, examples, config, seed=1)
    with torch.no_grad():
        texts = [t for t, _ in generate(lm, list(prefix(inputs)), DecodeConfig(max_tokens=4))]
    right = np.mean([text == example.target for text, example in zip(texts, examples)])
    assert losses[-1] < losses[0]
    assert right == 1 if kind != "none" else right <= 1 / 3 + 1e-6


def test_rows_differ_in_what_they_see_alone(lm: FrozenLM) -> None:
    """Which of tokens, h and x moves which slots."""
    inputs, _ = problem(lm)
    still = inputs.take([0] * len(inputs))  # the same picture everywhere
    seen = {"none": "", "image": "tokens", "x": "x", "aape": "h", "both": "tokens h"}
    for kind, (name, value) in itertools.product(KINDS + ("x",), vars(inputs).items()):
        prefix = Prefix(kind, (2, 8), 8, lm.width, lm.scale, 3)
        prefix.standardise(inputs)
        with torch.no_grad():
            slots = prefix(replace(still, **{name: value})).var(0).sum(-1) > 0
        moved = [name == "tokens"] * 2 + [name != "tokens"] * 3
        assert slots.tolist() == (moved if name in seen[kind].split() else [False] * 5)


def test_the_language_model_is_not_touched(lm: FrozenLM) -> None:
    before = [p.clone() for p in lm.model.parameters()]
    inputs, examples = problem(lm)
    train_prefix(
        lm,
        Prefix("both", (2, 8), 8, lm.width, 1.0),
        inputs,
        examples,
        PrefixConfig(steps=2),
        seed=1,
    )
    assert all(torch.equal(a, b) for a, b in zip(before, lm.model.parameters()))
    assert all(p.grad is None for p in lm.model.parameters())


def test_a_killed_training_ends_with_the_same_weights(
    lm: FrozenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aape.adapter.captions import prefix_training

    monkeypatch.setattr(prefix_training, "_SECONDS_AT_RISK", -1.0)  # a checkpoint after every step
    inputs, examples = problem(lm)
    config = PrefixConfig(steps=6, batch_size=4)

    def train(checkpoint: Path | None, stop_after: int = 99) -> Prefix:
        torch.manual_seed(5)
        prefix = Prefix("both", (2, 8), 8, lm.width, lm.scale)

        def stop(number: int, _: float) -> None:
            if number == stop_after:
                raise KeyboardInterrupt

        train_prefix(
            lm, prefix, inputs, examples, config, seed=2, checkpoint=checkpoint, on_step=stop
        )
        return prefix

    whole = train(None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "state.safetensors", stop_after=3)
    again = train(tmp_path / "state.safetensors")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("wide", [4, 64])
def test_a_step_moves_a_map_as_far_as_a_constant(lm: FrozenLM, wide: int) -> None:
    """Whatever the width of the tower; Adam's steps are a fixed length a weight."""
    h = torch.randn(40, wide)
    inputs = PrefixInputs(torch.randn(40, 1, wide), h, h)
    prefix = Prefix("both", (1, wide), wide, lm.width, lm.scale)
    prefix.standardise(inputs)
    before = prefix(inputs).detach()
    with torch.no_grad():
        for weight in (prefix.from_tokens.weight, prefix.from_h.weight):
            weight += 0.01 * torch.randn_like(weight).sign()
    moved = (prefix(inputs).detach() - before).pow(2).mean().sqrt()
    assert 0.1 * 0.01 < float(moved) <= 0.01
    assert float((before - prefix.bias.detach()).std()) == pytest.approx(lm.scale, rel=0.35)


def test_a_prefix_goes_on_from_another(lm: FrozenLM) -> None:
    torch.manual_seed(0)
    h = torch.randn(8, 6)
    inputs = PrefixInputs(torch.randn(8, 1, 4), h, h)
    config = PrefixConfig(steps=2, batch_size=4, lr=0.01)
    rows = [Example(i, "", "a b") for i in range(8)]
    first = Prefix("both", (1, 4), 6, lm.width, lm.scale)
    train_prefix(lm, first, inputs, rows, config, seed=1)
    other = PrefixInputs(inputs.tokens + 3, h, h)
    second = Prefix("both", (1, 4), 6, lm.width, lm.scale)
    still = config.model_copy(update={"steps": 0})
    train_prefix(lm, second, other, rows, still, seed=1, start=first)
    assert torch.equal(first(inputs), second(inputs))  # its statistics are the first's too

"""Batched decoding from embeddings with a KV cache, and ranking of a closed list of answers.

b  contexts in a batch   l  their length, padded on the left   v  vocabulary
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ...pipeline.config import Section, Seed

if TYPE_CHECKING:
    from .lm import FrozenLM


class DecodeConfig(Section):
    """How text is chosen from the model's distribution."""

    strategy: Literal["greedy", "beam", "sample"] = Field(
        default="greedy", description="how words are chosen"
    )
    beams: int = Field(default=4, ge=1, description="of the strategy beam")
    length_penalty: float = Field(default=1.0, ge=0, description="beam: divide by length to this")
    temperature: float = Field(default=1.0, gt=0, description="of the strategy sample")
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="of the strategy sample: least likely words are left out",
    )
    max_tokens: int = Field(default=24, ge=1, description="longest text")
    batch_size: int = Field(default=32, ge=1, description="texts at once")
    seed: Seed = Field(default=0, description="of the strategy sample")


def length_sorted(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield batches of indices of like length, the longest first (memory fails early, not late)."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def generate(
    lm: FrozenLM, contexts: Sequence[Tensor], config: DecodeConfig
) -> list[tuple[str, bool]]:
    """Continue each context (l_i, w); return the text, and whether it ended by itself.

    A text ends at the model's end token or a newline, which are not part of it, or after
    ``max_tokens``. Results are in the order of the contexts and do not depend on the batch size,
    except for sampling.
    """
    return [(text, ended) for text, ended, _ in answer(lm, contexts, config)]


Start = tuple[Tensor, Any, Tensor]  # log-probabilities (b, v), KV cache, mask (b, l)


def _prefill(lm: FrozenLM, contexts: Sequence[Tensor]) -> Start:
    """Run the contexts through the model."""
    contexts = [torch.cat([lm.start, context]) for context in contexts]
    longest = max(len(context) for context in contexts)
    embeds = torch.zeros(
        len(contexts), longest, lm.width, dtype=lm.embedding.dtype, device=lm.device
    )
    mask = torch.zeros(len(contexts), longest, dtype=torch.long, device=lm.device)
    for row, context in enumerate(contexts):
        embeds[row, longest - len(context) :] = context
        mask[row, longest - len(context) :] = 1
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    same = bool(mask.all())
    # an index, not a number: a slice is not contiguous, and the product with the vocabulary would
    # copy the vocabulary's matrix once a context
    last = torch.tensor([longest - 1], device=lm.device)
    out = lm.model(
        inputs_embeds=embeds,
        attention_mask=None if same else mask,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=last,
    )
    return out.logits[:, -1].float().log_softmax(-1), out.past_key_values, mask


def _advance(lm: FrozenLM, tokens: Tensor, cache: Any, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Feed tokens (b, s) after the cache: log-probabilities (b, s, v) and the longer mask."""
    steps = tokens.shape[1]
    first = mask.sum(1, keepdim=True)
    mask = torch.cat([mask, mask.new_ones(len(mask), steps)], 1)
    positions = first + torch.arange(steps, device=tokens.device)
    out = lm.model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    return out.logits.float().log_softmax(-1), mask


def _one_path(
    lm: FrozenLM, start: Start, config: DecodeConfig, generator: torch.Generator
) -> list[list[int]]:
    """Greedy or sampled continuation; rows that ended leave the batch."""
    scores, cache, mask = start
    found: list[list[int]] = [[] for _ in mask]
    alive = list(range(len(mask)))
    for turn in range(config.max_tokens):
        token = _choose(scores, config, generator)
        for row, value in zip(alive, token.tolist()):
            found[row].append(value)
        going = [i for i, value in enumerate(token.tolist()) if value not in lm.stops]
        if not going or turn + 1 == config.max_tokens:
            break
        if len(going) < len(alive):
            index = torch.tensor(going, device=lm.device)
            cache.batch_select_indices(index)
            alive, token, mask = [alive[i] for i in going], token[index], mask[index]
        steps, mask = _advance(lm, token[:, None], cache, mask)
        scores = steps[:, -1]
    return found


def _choose(scores: Tensor, config: DecodeConfig, generator: torch.Generator) -> Tensor:
    if config.strategy != "sample":
        return scores.argmax(-1)
    probabilities = (scores / config.temperature).softmax(-1)
    if config.top_p < 1:
        ordered, index = probabilities.sort(-1, descending=True)
        outside = ordered.cumsum(-1) - ordered >= config.top_p  # the first is always inside
        probabilities = torch.zeros_like(probabilities).scatter(
            -1, index, ordered.masked_fill(outside, 0.0)
        )
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def _beam(lm: FrozenLM, start: Start, config: DecodeConfig) -> list[list[int]]:
    """Beam search; a finished text is kept by its log-probability over length to the penalty."""
    scores, cache, mask = start
    b, k = len(mask), config.beams
    total, tokens = scores.topk(k, -1)  # (b, k)
    cache.batch_repeat_interleave(k)
    mask = mask.repeat_interleave(k, 0)
    paths = [[[int(tokens[i, j])] for j in range(k)] for i in range(b)]
    best: list[tuple[float, list[int]]] = [(-float("inf"), []) for _ in range(b)]
    for turn in range(config.max_tokens):
        last_turn = turn + 1 == config.max_tokens
        for i in range(b):
            for j in range(k):
                path, value = paths[i][j], float(total[i, j])
                if path[-1] in lm.stops or last_turn:
                    value /= len(path) ** config.length_penalty
                    best[i] = max(best[i], (value, path), key=lambda pair: pair[0])
                    total[i, j] = -float("inf")
        # no open beam can beat a finished text that is already better than its best possible score
        longest = config.max_tokens**config.length_penalty
        if last_turn or all(float(total[i].max()) / longest <= best[i][0] for i in range(b)):
            break
        last = torch.tensor([[path[-1] for path in row] for row in paths], device=lm.device)
        steps, mask = _advance(lm, last.view(b * k, 1), cache, mask)
        v = steps.shape[-1]
        total, flat = (total[..., None] + steps[:, -1].view(b, k, v)).view(b, k * v).topk(k, -1)
        source, token = flat // v, flat % v
        cache.reorder_cache((source + k * torch.arange(b, device=lm.device)[:, None]).view(-1))
        paths = [
            [[*paths[i][int(source[i, j])], int(token[i, j])] for j in range(k)] for i in range(b)
        ]
    return [path for _, path in best]


@torch.no_grad()
def answer(
    lm: FrozenLM,
    contexts: Sequence[Tensor],
    config: DecodeConfig,
    vocabulary: Sequence[str] = (),
) -> list[tuple[str, bool, int]]:
    """Answer freely and from a closed list in one go, running each context once.

    Returns for each context the text, whether it ended by itself, and the position in
    ``vocabulary`` of the likeliest answer (-1 without a vocabulary).
    """
    tokens = [lm.ids(" " + entry.strip()) for entry in vocabulary]
    longest = max((len(context) for context in contexts), default=0)
    lm.check_length(longest + max([config.max_tokens, *map(len, tokens)]))
    generator = torch.Generator(device=lm.device).manual_seed(config.seed)
    out: list[tuple[str, bool, int]] = [("", True, -1)] * len(contexts)
    for rows in length_sorted([len(context) for context in contexts], config.batch_size):
        batch = [contexts[row] for row in rows]
        start = _prefill(lm, batch)
        best = _likeliest(lm, start, tokens) if tokens else [-1] * len(rows)
        if config.strategy == "beam" and config.beams > 1:
            found = _beam(lm, start, config)
        else:
            found = _one_path(lm, start, config, generator)
        for row, ids, choice in zip(rows, found, best):
            ended = bool(ids) and ids[-1] in lm.stops
            text = lm.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
            out[row] = (" ".join(text.split()), ended, choice)
    return out


@torch.no_grad()
def rank_answers(
    lm: FrozenLM, contexts: Sequence[Tensor], answers: Sequence[str], batch_size: int = 32
) -> Tensor:
    """Return the log-likelihood (n, a) of every answer after every context, summed over tokens."""
    tokens = [lm.ids(" " + entry.strip()) for entry in answers]
    lm.check_length(max(map(len, contexts)) + max(map(len, tokens)))
    out = torch.empty(len(contexts), len(answers))
    for rows in length_sorted([len(context) for context in contexts], batch_size):
        start = _prefill(lm, [contexts[row] for row in rows])
        out[rows] = _likelihoods(lm, start, tokens).cpu()
    return out


def _likelihoods(lm: FrozenLM, start: Start, tokens: Sequence[list[int]]) -> Tensor:
    """Return (b, a) log-likelihoods; an answer of one token costs nothing more than the context.

    Each longer answer is one short forward pass of the batch over the cached context.
    """
    scores, cache, mask = start
    table = scores[:, torch.tensor([ids[0] for ids in tokens], device=lm.device)]
    for column, ids in enumerate(tokens):
        if len(ids) > 1:
            rest = torch.tensor(ids, device=lm.device).expand(len(mask), -1)
            steps, _ = _advance(lm, rest[:, :-1], copy.deepcopy(cache), mask)
            table[:, column] += steps.gather(-1, rest[:, 1:, None])[..., 0].sum(1)
    return table


def _likeliest(lm: FrozenLM, start: Start, tokens: Sequence[list[int]]) -> list[int]:
    """Return for each context the position of its likeliest answer; ties to the first.

    More tokens only lower a likelihood, so an answer whose first token is less likely than a whole
    answer already found is out: few of a long list are ever run. Exact.
    """
    scores, cache, mask = start
    first = scores[:, torch.tensor([ids[0] for ids in tokens], device=lm.device)]  # (b, a)
    single = torch.tensor([len(ids) == 1 for ids in tokens], device=lm.device)
    best, choice = first.masked_fill(~single, -float("inf")).max(1)
    longer = [column for column, ids in enumerate(tokens) if len(ids) > 1]
    for column in sorted(longer, key=lambda column: -float(first[:, column].max())):
        rows = (first[:, column] >= best).nonzero()[:, 0]
        if not len(rows):
            continue
        some = copy.deepcopy(cache)
        some.batch_select_indices(rows)
        rest = torch.tensor(tokens[column], device=lm.device).expand(len(rows), -1)
        steps, _ = _advance(lm, rest[:, :-1], some, mask[rows])
        total = first[rows, column] + steps.gather(-1, rest[:, 1:, None])[..., 0].sum(1)
        better = (total > best[rows]) | ((total == best[rows]) & (column < choice[rows]))
        best[rows] = torch.where(better, total, best[rows])
        choice[rows] = torch.where(better, column, choice[rows])
    return choice.tolist()

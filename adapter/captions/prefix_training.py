"""How a prefix is trained: on texts of images, by the cross-entropy of a frozen language model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipeline.errors import UserError
from ..method.checkpoint import load_checkpoint, save_checkpoint
from .lm import FrozenLM
from .prefix import Prefix, PrefixInputs
from .settings import PrefixConfig

_SECONDS_AT_RISK = 20.0
_STEPS_UNREAD = 8  # whose losses are still on the device


@dataclass(frozen=True)
class Example:
    """One training text: image ``image``, then ``prompt`` (no loss), then ``target``."""

    image: int
    prompt: str
    target: str


@dataclass(frozen=True)
class Tokenised:
    """Examples as tokens.

    Attributes:
        images: of each text. prompts, targets: of each text, a target with its line break.
        lengths: (n,) of prompt and target together.
    """

    images: list[int]
    prompts: list[list[int]]
    targets: list[list[int]]
    lengths: np.ndarray

    @classmethod
    def of(cls, lm: FrozenLM, examples: Sequence[Example]) -> Tokenised:
        """Tokenise prompts and targets."""
        prompts = [lm.ids(example.prompt) if example.prompt else [] for example in examples]
        targets = [[*lm.ids(example.target), lm.newline] for example in examples]
        lengths = np.array([len(p) + len(t) for p, t in zip(prompts, targets)])
        return cls([example.image for example in examples], prompts, targets, lengths)

    def loss(
        self, lm: FrozenLM, prefix: Prefix, inputs: PrefixInputs, rows: Sequence[int] | np.ndarray
    ) -> Tensor:
        """Return :func:`prefix_loss` of some of the texts."""
        return prefix_loss(
            lm,
            prefix(inputs.take([self.images[row] for row in rows])),
            [self.prompts[row] for row in rows],
            [self.targets[row] for row in rows],
        )


def target_embeddings(lm: FrozenLM, examples: Sequence[Example], images: int) -> Tensor:
    """Return for each image the mean embedding (n, w) of its target words, rare ones weighing more.

    The goal of the warm start: words that most images share ("a", "the") say nothing about one.
    """
    counts: dict[int, dict[int, int]] = {}
    for example in examples:
        row = counts.setdefault(example.image, {})
        for token in lm.ids(example.target):
            row[token] = row.get(token, 0) + 1
    frequency: dict[int, int] = {}
    for row in counts.values():
        for token in row:
            frequency[token] = frequency.get(token, 0) + 1
    goal = torch.zeros(images, lm.width)
    table = lm.embedding.float().cpu()
    for image, row in counts.items():
        tokens = list(row)
        weight = torch.tensor(
            [row[token] * math.log(1 + len(counts) / frequency[token]) for token in tokens]
        )
        goal[image] = (weight[:, None] * table[tokens]).sum(0) / weight.sum()
    present = goal.abs().sum(1) > 0
    goal[~present] = goal[present].mean(0)
    return goal


def train_prefix(
    lm: FrozenLM,
    prefix: Prefix,
    inputs: PrefixInputs,
    examples: Sequence[Example],
    config: PrefixConfig,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
    start: Prefix | None = None,
) -> list[float]:
    """Train the maps on examples; return the loss of every step.

    Batches hold texts of like length, and logits are computed at target positions only. The order
    depends on the seed and the step alone: a killed training ends with the same weights.

    Args:
        start: a trained prefix of the same kind to go on from, instead of the warm start.

    Raises:
        UserError: there are no examples, one is too long, or the loss is not finite.
    """
    if not examples:
        raise UserError("There is nothing to train the prefix on: no text belongs to an image.")
    texts = Tokenised.of(lm, examples)
    lm.check_length(prefix.slots + int(texts.lengths.max()))
    _initialise(prefix, start, lm, inputs, examples, config)
    optimizer = torch.optim.AdamW(
        prefix.parameters(), lr=config.lr, weight_decay=config.weight_decay
    )
    losses: list[float] = []
    state = load_checkpoint(checkpoint, {"module": prefix}, optimizer) if checkpoint else None
    if state:
        losses = state["losses"]
    saved = time.monotonic()
    pending: list[Tensor] = []
    for number in range(len(losses), config.steps):
        done = number / max(config.steps, 1)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (number + 1) / 5) * (1 - done)
        loss = texts.loss(lm, prefix, inputs, _batch(texts, config.batch_size, seed, number))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(prefix.parameters(), 1.0)
        optimizer.step()
        pending.append(loss.detach())
        due = checkpoint is not None and time.monotonic() - saved > _SECONDS_AT_RISK
        last = number + 1 == config.steps
        if on_step or due or last or len(pending) == _STEPS_UNREAD:
            losses += _finite_losses(pending, len(losses))
            pending.clear()
        if on_step:
            on_step(number, losses[-1])
        if checkpoint and due:
            save_checkpoint(checkpoint, {"module": prefix}, optimizer, {"losses": losses})
            saved = time.monotonic()
    if checkpoint:
        save_checkpoint(checkpoint, {"module": prefix}, optimizer, {"losses": losses})
    return losses


def _initialise(
    prefix: Prefix,
    start: Prefix | None,
    lm: FrozenLM,
    inputs: PrefixInputs,
    examples: Sequence[Example],
    config: PrefixConfig,
) -> None:
    """Go on from a trained prefix, or begin at the warm start or, without it, at random maps."""
    if start is not None:
        prefix.load_state_dict(start.state_dict())
        return
    prefix.standardise(inputs)
    if config.warm_start:
        goal = target_embeddings(lm, examples, len(inputs))
        opening = lm.embed(lm.ids(config.opening)).float().cpu()
        prefix.warm_start(inputs, goal, opening, config.ridge)


def _finite_losses(pending: list[Tensor], first: int) -> list[float]:
    """Read losses at once: to read one makes the host wait for the device.

    Raises:
        UserError: one is not finite; ``first`` is the number of the first.
    """
    values = torch.stack(pending).tolist()
    for number, value in enumerate(values, start=first + 1):
        if not math.isfinite(value):
            raise UserError(f"The loss is not finite in step {number}.", "Lower lr.")
    return values


def _batch(texts: Tokenised, size: int, seed: int, number: int) -> np.ndarray:
    """Draw four batches at random, sort them by length, and return one: little padding."""
    rng = np.random.default_rng([seed, number])
    pool = rng.permutation(len(texts.lengths))[: 4 * size]
    pool = pool[np.argsort(texts.lengths[pool], kind="stable")]
    parts = np.array_split(pool, max(1, len(pool) // size))
    return parts[int(rng.integers(len(parts)))]


def prefix_loss(
    lm: FrozenLM, prefix: Tensor, prompts: Sequence[list[int]], targets: Sequence[list[int]]
) -> Tensor:
    """Return the mean cross-entropy of the target tokens after prefix (b, p, w) and prompt.

    Sequences are padded on the right: causal attention never looks there, so no mask is needed.
    """
    b, p, _ = prefix.shape
    length = max(len(prompt) + len(target) for prompt, target in zip(prompts, targets))
    ids = torch.full((b, length), lm.newline, dtype=torch.long)
    where: list[tuple[int, int]] = []
    labels: list[int] = []
    for row, (prompt, target) in enumerate(zip(prompts, targets)):
        ids[row, : len(prompt) + len(target)] = torch.tensor(prompt + target)
        first = (
            len(lm.start) + p + len(prompt) - 1
        )  # the position that predicts the first target token
        where += [(row, first + offset) for offset in range(len(target))]
        labels += target
    texts = F.embedding(ids[:, :-1].to(lm.device), lm.embedding)
    start = lm.start.expand(b, -1, -1)
    embeds = torch.cat([start, prefix.to(lm.device, lm.embedding.dtype), texts], 1)
    hidden = lm.model.get_decoder()(inputs_embeds=embeds, use_cache=False).last_hidden_state
    rows, columns = torch.tensor(where, device=lm.device).T
    logits = lm.model.get_output_embeddings()(hidden[rows, columns])  # only where it counts
    return F.cross_entropy(logits.float(), torch.tensor(labels, device=lm.device))

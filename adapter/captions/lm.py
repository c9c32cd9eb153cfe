"""Image tokens and the AAPE before a frozen language model (in the manner of LiMBeR).

    n  images           tokens  (n, t, e)  frozen image tower before pooling, t = grid²
    w  width of the LM  h       (n, d)     the AAPE of each image, x (n, d) its image feature
    p  prefix slots     prefix  (n, p, w)  p = t (image tokens) + m (AAPE; 1 in the paper), each
                                           through its own linear map; nothing else is trained

Four kinds of prefix make the rows of every table. ``none`` trains the same number of slots
on nothing: what a tuned prompt gains without seeing the image. A fifth, ``x``, is a control: the
slots of the AAPE filled with the image feature that ``h`` is computed from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...pipeline.config import Section
from ...pipeline.errors import UserError
from ..method.checkpoint import load_checkpoint, save_checkpoint

Kind = Literal["none", "image", "x", "aape", "both"]
KINDS: tuple[Kind, ...] = ("none", "image", "aape", "both")
NAMES: dict[Kind, str] = {
    "none": "no image",
    "image": "image tokens",
    "x": "x in place of the AAPE",
    "aape": "AAPE",
    "both": "image tokens + AAPE",
}
_SECONDS_AT_RISK = 20.0
_STEPS_UNREAD = 8  # whose losses are still on the device


class PrefixConfig(Section):
    """How the linear maps are trained. LiMBeR's literal start is ``warm_start: false``."""

    grid: int = Field(default=2, ge=1, description="image tokens are pooled to grid × grid")
    aape_tokens: int = Field(
        default=1, ge=1, description="slots that the map of the AAPE fills; the paper has one"
    )
    warm_start: bool = Field(
        default=True,
        description="start at the ridge map onto the target words' embeddings, after ``opening``",
    )
    opening: str = Field(default="Image caption:", description="where the bias of the slots starts")
    ridge: float = Field(default=0.1, gt=0, description="of the warm start, relative")
    lr: float = Field(default=3e-2, gt=0, description="learning rate at its peak")
    weight_decay: float = Field(default=1e-2, ge=0, description="of the optimiser")
    batch_size: int = Field(default=16, ge=1, description="images of a step")
    steps: int = Field(default=100, ge=0, description="of training the prefix")


class FrozenLM:
    """A causal language model that is never trained, seen through its input embeddings."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.embedding: Tensor = model.get_input_embeddings().weight
        self.width = self.embedding.shape[1]
        self.scale = float(self.embedding[::16].float().pow(2).mean().sqrt())
        self.context = int(getattr(model.config, "max_position_embeddings", 1 << 30))
        self.newline = self._end_of_a_line()
        # models with a start token use it as the place that attention rests on; they need it
        first = model.config.bos_token_id
        self.start = self.embed([first] if isinstance(first, int) else [])  # (0 or 1, w)
        ends = {self.newline, tokenizer.eos_token_id, model.config.eos_token_id}
        self.stops = {token for token in ends if isinstance(token, int)}

    @classmethod
    def load(cls, spec: str = "smollm2", device: str = "auto") -> FrozenLM:
        """Load ``smollm2``, a folder, or a model of the hub (see pipeline.language_models)."""
        from ...pipeline.encoders.base import fast_dtype, pick_device
        from ...pipeline.prompts.models import load_causal_lm

        place = pick_device(device)
        return cls(*load_causal_lm(spec, str(place), fast_dtype(place)), spec)

    def _end_of_a_line(self) -> int:
        """Return the token of a line break; the end token where a tokenizer drops line breaks.

        Raises:
            UserError: the model has neither.
        """
        if found := self.ids("\n"):
            return found[-1]
        for token in (self.tokenizer.eos_token_id, self.model.config.eos_token_id):
            if isinstance(token, int):
                return token
        raise UserError(
            f"The language model {self.name} has neither a line break nor an end token.",
            "Texts could not end: use another language model.",
        )

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.embedding.device

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a piece of text, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Return the input embeddings (l, w) of tokens."""
        index = torch.tensor(list(ids), dtype=torch.long, device=self.device)
        return F.embedding(index, self.embedding)

    def check_length(self, length: int) -> None:
        """Raise :class:`UserError` if a sequence does not fit into the model's context."""
        length += len(self.start)
        if length > self.context:
            raise UserError(
                f"A prefix with its text needs {length} positions; {self.name} has {self.context}.",
                "Use fewer image tokens (a smaller grid), fewer shots, or another language model.",
            )


def pool_tokens(tokens: np.ndarray, grid: int) -> Tensor:
    """Average image tokens (n, t, e) over a grid: (n, grid², e) float32.

    A class token before a square map (as in ViT) is left out; maps that are not square are pooled
    along their length.
    """
    n, t, e = tokens.shape
    side = math.isqrt(t)
    if side * side != t and math.isqrt(t - 1) ** 2 == t - 1:
        tokens, side, t = tokens[:, 1:], math.isqrt(t - 1), t - 1
    out = torch.empty(n, grid * grid, e)
    for start in range(0, n, 256):
        part = torch.from_numpy(tokens[start : start + 256].astype(np.float32))
        if side * side == t:
            maps = part.transpose(1, 2).reshape(-1, e, side, side)
            pooled = F.adaptive_avg_pool2d(maps, grid).flatten(2)
        else:
            pooled = F.adaptive_avg_pool1d(part.transpose(1, 2), grid * grid)
        out[start : start + 256] = pooled.transpose(1, 2)
    return out


@dataclass
class PrefixInputs:
    """What the prefix of each image is made of: tokens (n, t, e), h and x (n, d)."""

    tokens: Tensor
    h: Tensor
    x: Tensor

    def __len__(self) -> int:
        return len(self.h)

    def take(self, rows: Sequence[int] | np.ndarray) -> PrefixInputs:
        """Return the inputs of some images."""
        index = torch.as_tensor(np.asarray(rows), dtype=torch.long)
        return PrefixInputs(self.tokens[index], self.h[index], self.x[index])


class Prefix(nn.Module):
    """The only trained part: one linear map for image tokens, one for the AAPE.

    The first t slots are the image's, the last m are the AAPE's; a slot whose input a row does not
    have holds a learned constant.

    Inputs are standardised with the statistics of the training images (fixed, so the whole is still
    linear) and divided by their width: a step of Adam, about ``lr`` a weight whatever the gradient,
    then moves the output of a map about as far as it moves the constant of a slot. Without that a
    map of 1,280 inputs takes steps 36 times as long as the constants, and one of the two cannot
    learn. Outputs start at the scale of the model's own embeddings.
    """

    def __init__(
        self,
        kind: Kind,
        tokens: tuple[int, int],
        h_dim: int,
        width: int,
        scale: float,
        aape_tokens: int = 1,
    ):
        super().__init__()
        self.kind, (t, e) = kind, tokens
        self.aape_tokens = aape_tokens
        self.slots = t + aape_tokens  # of every kind: rows differ in what they see alone
        self.bias = nn.Parameter(torch.randn(self.slots, width) * scale * 0.5)
        if kind in ("image", "both"):
            self.from_tokens = nn.Linear(e, width, bias=False)
            nn.init.normal_(self.from_tokens.weight, std=scale * math.sqrt(e))
            self.token_mean: Tensor
            self.token_std: Tensor
            self.register_buffer("token_mean", torch.zeros(t, e))
            self.register_buffer("token_std", torch.ones(t, e))
        if kind in ("x", "aape", "both"):
            self.from_h = nn.Linear(h_dim, aape_tokens * width, bias=False)
            nn.init.normal_(self.from_h.weight, std=scale * math.sqrt(h_dim))
            self.h_mean: Tensor
            self.h_std: Tensor
            self.register_buffer("h_mean", torch.zeros(h_dim))
            self.register_buffer("h_std", torch.ones(h_dim))

    def standardise(self, inputs: PrefixInputs) -> None:
        """Take mean and spread from the training images."""
        if self.kind in ("image", "both"):
            self.token_mean.copy_(inputs.tokens.mean(0))
            spread = inputs.tokens.std(0)
            self.token_std.copy_(spread + 0.1 * spread.mean() + 1e-6)
        if self.kind in ("x", "aape", "both"):
            h = self._h(inputs)
            self.h_mean.copy_(h.mean(0))
            spread = h.std(0)
            self.h_std.copy_(spread + 0.1 * spread.mean() + 1e-6)

    def _h(self, inputs: PrefixInputs) -> Tensor:
        return inputs.x if self.kind == "x" else inputs.h

    def scaled_tokens(self, inputs: PrefixInputs) -> Tensor:
        """Return standardised tokens (n, t, e) over their width."""
        return (inputs.tokens - self.token_mean) / self.token_std / inputs.tokens.shape[-1]

    def scaled_h(self, inputs: PrefixInputs) -> Tensor:
        """Return the standardised AAPE (n, d) over its width."""
        h = self._h(inputs)
        return (h - self.h_mean) / self.h_std / h.shape[-1]

    def forward(self, inputs: PrefixInputs) -> Tensor:
        """Return the prefix (n, p, w)."""
        n, m, width = len(inputs), self.aape_tokens, self.bias.shape[1]
        tokens = h = self.bias.new_zeros(1, 1, 1)
        if self.kind in ("image", "both"):
            tokens = self.from_tokens(self.scaled_tokens(inputs))
        if self.kind in ("x", "aape", "both"):
            h = self.from_h(self.scaled_h(inputs)).view(n, m, width)
        slots = [tokens.expand(n, self.slots - m, width), h.expand(n, m, width)]
        return torch.cat(slots, 1) + self.bias

    @torch.no_grad()
    def warm_start(self, inputs: PrefixInputs, goal: Tensor, opening: Tensor, ridge: float) -> None:
        """Set the maps to the ridge regression of ``goal`` (n, w), the bias to a phrase (q, w).

        The last slots get the last tokens of the phrase; slots before them repeat its first.
        """
        if len(opening):
            places = (torch.arange(self.slots) + len(opening) - self.slots).clamp_min(0)
            self.bias.copy_(opening[places])
        centred = goal - goal.mean(0)
        if self.kind in ("image", "both"):
            x = self.scaled_tokens(inputs).mean(1)
            self.from_tokens.weight.copy_(_ridge(x, centred, ridge))
        if self.kind in ("x", "aape", "both"):
            found = _ridge(self.scaled_h(inputs), centred, ridge)
            self.from_h.weight.copy_(found.repeat(self.aape_tokens, 1))


def _ridge(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """Return the map (w, d) that minimises ‖x Mᵀ − y‖² with a relative ridge.

    In double precision, and never without any ridge: images that are all alike have no spread.
    """
    x, y, kind = x.double(), y.double(), y.dtype
    gram = x.T @ x
    penalty = (ridge * gram.diagonal().mean()).clamp_min(1e-12) * torch.eye(len(gram))
    return torch.linalg.solve(gram + penalty, x.T @ y).T.to(kind)


@dataclass(frozen=True)
class Example:
    """One training text: image ``image``, then ``prompt`` (no loss), then ``target``."""

    image: int
    prompt: str
    target: str


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
    prompts = [lm.ids(example.prompt) if example.prompt else [] for example in examples]
    targets = [[*lm.ids(example.target), lm.newline] for example in examples]
    lm.check_length(prefix.slots + max(len(p) + len(t) for p, t in zip(prompts, targets)))
    if start is not None:
        prefix.load_state_dict(start.state_dict())
    else:
        prefix.standardise(inputs)
    if start is None and config.warm_start:
        goal = target_embeddings(lm, examples, len(inputs))
        opening = lm.embed(lm.ids(config.opening)).float().cpu()
        prefix.warm_start(inputs, goal, opening, config.ridge)
    optimizer = torch.optim.AdamW(
        prefix.parameters(), lr=config.lr, weight_decay=config.weight_decay
    )
    losses: list[float] = []
    state = load_checkpoint(checkpoint, {"module": prefix}, optimizer) if checkpoint else None
    if state:
        losses = state["losses"]
    saved = time.monotonic()
    pending: list[Tensor] = []
    lengths = np.array([len(p) + len(t) for p, t in zip(prompts, targets)])
    for number in range(len(losses), config.steps):
        rows = _batch(lengths, config.batch_size, seed, number)
        done = number / max(config.steps, 1)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (number + 1) / 5) * (1 - done)
        loss = prefix_loss(
            lm,
            prefix(inputs.take([examples[row].image for row in rows])),
            [prompts[row] for row in rows],
            [targets[row] for row in rows],
        )
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


def _batch(lengths: np.ndarray, size: int, seed: int, number: int) -> np.ndarray:
    """Draw four batches at random, sort them by length, and return one: little padding."""
    rng = np.random.default_rng([seed, number])
    pool = rng.permutation(len(lengths))[: 4 * size]
    pool = pool[np.argsort(lengths[pool], kind="stable")]
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

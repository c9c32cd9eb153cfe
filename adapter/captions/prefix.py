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
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .settings import Kind

NAMES: dict[Kind, str] = {
    "none": "no image",
    "image": "image tokens",
    "x": "x in place of the AAPE",
    "aape": "AAPE",
    "both": "image tokens + AAPE",
}


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

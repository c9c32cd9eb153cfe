"""A frozen CLIP text tower that reads learned vectors before a class name (Zhou et al. 2022, CoOp).

b images, c classes, m context vectors, e their width, l tokens, d width of the joint space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .base import unit


class PromptTower:
    """The text tower of an open_clip model; gradients flow to the context alone."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model.requires_grad_(False), tokenizer

    @torch.no_grad()
    def start(self, words: str = "a photo of a") -> torch.Tensor:
        """Return the embeddings (m, e) of some words, float32."""
        tokens = self._tokenizer([words]).to(self._device)
        length = int(tokens.argmax(1)) - 1
        return self._model.token_embedding(tokens[:, 1 : 1 + length])[0].float()

    def __call__(self, names: Sequence[str], context: torch.Tensor) -> torch.Tensor:
        """Encode ``[context] name.``: context (m, e) to (c, d), or (b, m, e) to (b, c, d)."""
        m = context.shape[-2]
        tokens = self._tokenizer([" ".join(["x"] * m) + f" {name}." for name in names])
        tokens = tokens.to(self._device)
        end = tokens.argmax(1)  # (c,)
        x = self._model.token_embedding(tokens[:, : int(end.max()) + 1]).float()  # (c, l, e)
        several = context if context.dim() == 3 else context[None]  # (b, m, e)
        b, c = len(several), len(x)
        x = x[None].expand(b, -1, -1, -1)
        middle = several[:, None].expand(-1, c, -1, -1)
        x = torch.cat([x[:, :, :1], middle, x[:, :, 1 + m :]], 2).flatten(0, 1)  # (b·c, l, e)
        out = unit(encode_embedded(self._model, x, end.repeat(b))).unflatten(0, (b, c))
        return out if context.dim() == 3 else out[0]

    @property
    def _device(self) -> torch.device:
        return self._model.positional_embedding.device


def encode_embedded(model: Any, x: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Run a causal text tower from token embeddings: x (n, l, width), end (n,) to (n, d)."""
    length = x.shape[1]
    dtype = model.transformer.get_cast_dtype()
    x = x.to(dtype) + model.positional_embedding[:length].to(dtype)
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])  # (n, l, width)
    x = x[torch.arange(len(x), device=x.device), end]  # (n, width)
    x = model.ln_final(x)
    projection = model.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, torch.nn.Module) else x @ projection

"""MiniLM as its published weights need it: BERT with six layers (Devlin et al., NAACL 2019).

transformers builds the same network, and a test holds the two equal to the bit; but importing its
BERT takes longer than all else that a sentence needs.

n texts, l tokens of the longest, w = 384.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

WIDTH = 384
_WIDE = 1536
_HEADS = 12
_LAYERS = 6
_WORDS, _PLACES, _KINDS = 30522, 512, 2
_EPSILON = 1e-12


def _table(rows: int) -> nn.Embedding:
    """An embedding of no values yet: drawing them for no device imports torch's compiler."""
    return nn.Embedding.from_pretrained(torch.empty(rows, WIDTH), freeze=False)


class Embeddings(nn.Module):
    """Words, places and the kind of the first sentence, added."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = _table(_WORDS)
        self.position_embeddings = _table(_PLACES)
        self.token_type_embeddings = _table(_KINDS)
        self.LayerNorm = nn.LayerNorm(WIDTH, _EPSILON)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Map ids (n, l) to (n, l, w)."""
        kind = self.token_type_embeddings.weight[0]
        places = self.position_embeddings.weight[: ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(ids) + kind + places)


class Added(nn.Module):
    """A linear map whose result is added to what went into its branch, and normalised."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inside, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, _EPSILON)

    def forward(self, branch: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Map the branch (n, l, i) and x (n, l, w) to (n, l, w)."""
        return self.LayerNorm(self.dense(branch) + x)


class Attention(nn.Module):
    """Self-attention of twelve heads."""

    def __init__(self) -> None:
        super().__init__()
        names = ("query", "key", "value")
        self.self = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in names})
        self.output = Added(WIDTH)

    def forward(self, x: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """Map x (n, l, w) to the same shape; ``seen`` (n, 1, 1, l) is true where a token is."""
        shape = (*x.shape[:2], _HEADS, -1)
        query, key, value = (part(x).view(shape).transpose(1, 2) for part in self.self.values())
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.output(mixed.transpose(1, 2).reshape(x.shape), x)


class Layer(nn.Module):
    """Attention, then two linear maps at each token."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, _WIDE)})
        self.output = Added(_WIDE)

    def forward(self, x: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """Map x (n, l, w) to the same shape."""
        x = self.attention(x, seen)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class MiniLM(nn.Module):
    """Tokens to hidden states; the names of its parameters are those of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(_LAYERS))})

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map ids and mask (n, l), 1 where a token is, to hidden states (n, l, w)."""
        seen = None if mask.all() else mask[:, None, None, :].bool()
        x = self.embeddings(ids)
        for layer in self.encoder["layer"]:  # type: ignore[union-attr]
            x = layer(x, seen)
        return x

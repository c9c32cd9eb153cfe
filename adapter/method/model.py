"""The method on one screen: aggregate, reward, generate, distil, classify (Huang et al. 2024).

    b  images              x  (b, d)     image features of frozen CLIP, unit length
    c  classes             w  (c, d)     text features of the template, unit length
    k  prompts of a class  p  (n, k, d)  text features of reference prompts, zero padded;
    d  embedding width                   mask (n, k) is true where a prompt is
    r  bottleneck width    h  (b, d)     the aggregated-and-adapted prompt embedding, AAPE

Training: ``target = aggregator(p, mask, x)``, ``h = generator(x)``, ``cos = head(x, w, h)``.
At test time the aggregator and the prompts are gone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .recipe import Recipe

# (b, c', r) activations held at once: 128 MB in training, cache-sized when no gradient is kept
_TRAINING_ELEMENTS, _INFERENCE_ELEMENTS = 1 << 25, 1 << 19


class Aggregator(nn.Module):
    """Reference prompts of a class, or captions of an image, to one vector ``p^a`` (Eq. 1).

    ``attention`` is the first output of one standard post-norm transformer layer over
    ``[query, p_1 … p_k]``. Keys and values are never projected per prompt: the projections are
    folded into the query and into the average, which is exact and ``d / heads`` times cheaper.

    Args:
        kind: ``attention``, ``mean``, ``random`` (one prompt a call) or ``mlp`` (of the mean).
        query: ``literal`` (the mean prompt plus a learned offset that starts at zero), ``image``
            (that plus a learned map of ``x`` that starts at zero) or ``free`` (learned, shared).
        identity: start as the mean prompt: the layer's output is a residual that starts at zero.
    """

    def __init__(
        self,
        dim: int,
        kind: str = "attention",
        query: str = "literal",
        heads: int = 8,
        ffn: int = 0,
        identity: bool = False,
    ) -> None:
        super().__init__()
        self.kind, self.query, self.heads, self.identity = kind, query, heads, identity
        ffn = ffn or dim
        if kind == "attention":
            self.layer = nn.TransformerEncoderLayer(dim, heads, ffn, 0.0, batch_first=True)
            start = torch.zeros(dim) if query != "free" else torch.randn(dim) / math.sqrt(dim)
            self.offset = nn.Parameter(start)
        elif kind == "mlp":
            self.layer = nn.Sequential(nn.Linear(dim, ffn), nn.ReLU(), nn.Linear(ffn, dim))
        if kind == "attention" and query == "image":
            self.from_image = zero_(nn.Linear(dim, dim, bias=False))
        if identity and kind in ("attention", "mlp"):
            self.scale = nn.Parameter(torch.zeros(dim))

    def forward(self, p: Tensor, mask: Tensor, x: Tensor | None = None) -> Tensor:
        """Return ``p^a`` (n, d), unit length. ``x`` (n, d) is needed for ``query="image"`` only."""
        mean = F.normalize((p * mask[..., None]).sum(1), dim=-1)  # (n, d): p̄
        if self.kind == "mean":
            return mean
        if self.kind == "random":
            chosen = torch.rand_like(p[..., 0]).masked_fill(~mask, -1.0).argmax(1)  # (n,)
            return F.normalize(p[torch.arange(len(p), device=p.device), chosen], dim=-1)
        if self.kind == "mlp":
            out = self.layer(mean)
        else:
            query = self.offset.expand_as(mean) if self.query == "free" else mean + self.offset
            if self.query == "image":
                if x is None:
                    raise ValueError("an image-conditioned query needs x")
                query = query + self.from_image(x)
            out = self.attend(
                query, torch.cat([query[:, None], p], 1), F.pad(mask, (1, 0), value=True)
            )
        return F.normalize(mean + self.scale * out if self.identity else out, dim=-1)

    def attend(self, q: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the layer's output for its first token: q (n, d), tokens (n, k+1, d) -> (n, d)."""
        layer: Any = self.layer
        attn = layer.self_attn
        n, d = q.shape
        size = d // self.heads
        w_q, w_k, w_v = attn.in_proj_weight.view(3, self.heads, size, d)
        b_q, _, b_v = attn.in_proj_bias.view(3, self.heads, size)  # a key bias cancels in softmax
        heads = torch.einsum("nd,hsd->nhs", q, w_q) + b_q
        keys = torch.einsum("nhs,hsd->nhd", heads, w_k)  # the key projection, on the query's side
        score = torch.einsum("nhd,nkd->nhk", keys, tokens) / math.sqrt(size)
        weight = score.masked_fill(~mask[:, None], -math.inf).softmax(-1)  # (n, h, k+1)
        average = weight @ tokens  # (n, h, d): average first, project after
        value = torch.einsum("nhd,hsd->nhs", average, w_v) + b_v
        y = layer.norm1(q + attn.out_proj(value.reshape(n, d)))
        return layer.norm2(y + layer.linear2(F.relu(layer.linear1(y))))


class Generator(nn.Module):
    """The AAPE: ``h(x)``, two fully connected layers with ReLU.

    ``residual`` starts at the mean text feature and sees centred images:
    ``h(x) = t̄ + W₂ relu(W₁ (x − x̄) + b₁) + b₂`` with ``W₂`` and ``b₂`` zero at the start.
    ``skip`` adds ``x − x̄``: then ``h`` starts as the image, moved by the gap between the means.
    """

    def __init__(
        self,
        dim: int,
        width: int = 32,
        residual: bool = False,
        mean_text: Tensor | None = None,
        mean_image: Tensor | None = None,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.skip = skip
        self.inner, self.outer = nn.Linear(dim, width), nn.Linear(width, dim)
        self.mean_text: Tensor
        self.mean_image: Tensor
        self.register_buffer("mean_text", zeros(dim) if mean_text is None else mean_text.clone())
        self.register_buffer("mean_image", zeros(dim) if mean_image is None else mean_image.clone())
        if residual:
            zero_(self.outer)

    def forward(self, x: Tensor) -> Tensor:
        """Return h (b, d), not normalised, for x (b, d)."""
        centred = x - self.mean_image
        h = self.mean_text + self.outer(F.relu(self.inner(centred)))
        return h + centred if self.skip else h


class Head(nn.Module):
    """Per-image class weights ``w_i(x) = g([w_i; h])`` and their cosine with ``x`` (Eq. 3).

    ``g`` has ``r`` hidden units: ``w_i(x) = ρ·w_i + U relu(G_w w_i + G_h h + g) + β``. Literal is
    ρ = 0; ``residual`` is ρ = 1 with ``U`` and ``β`` zero at the start, hence zero-shot CLIP.
    """

    def __init__(self, dim: int, rank: int = 32, residual: bool = False, generator: bool = True):
        super().__init__()
        self.residual = residual
        self.from_text = nn.Linear(dim, rank)  # G_w and g
        self.from_prompt = nn.Linear(dim, rank, bias=False) if generator else None  # G_h
        self.out = nn.Linear(rank, dim, bias=not residual)  # U and β
        if residual:
            zero_(self.out)

    def weights(self, w: Tensor, h: Tensor | None) -> Tensor:
        """Return every ``w_i(x)`` (b, c, d): the definition, for tests and small numbers only."""
        start = w if self.residual else torch.zeros_like(w)
        a = self.from_text(w)  # (c, r)
        if self.from_prompt is not None and h is not None:
            a = a + self.from_prompt(h)[:, None]  # (b, c, r)
        return start + self.out(F.relu(a if a.dim() == 3 else a[None]))

    def forward(self, x: Tensor, w: Tensor, h: Tensor | None) -> Tensor:
        """Return cos(x, w_i(x)) (b, c), exact, without a (b, c, d) tensor.

        With v_i = ρ·w_i + β and a_i the hidden units: ``x·w_i(x) = x·v_i + (Uᵀx)·a_i`` and
        ``‖w_i(x)‖² = ‖v_i‖² + a_iᵀ(UᵀU a_i + 2Uᵀv_i)``.
        """
        u = self.out.weight  # (d, r)
        v = (
            w
            if self.residual
            else (zeros(w) if self.out.bias is None else self.out.bias.expand_as(w))
        )
        a_w = self.from_text(w)  # (c, r)
        a_h = x.new_zeros(len(x), a_w.shape[1])  # (b, r)
        if self.from_prompt is not None and h is not None:
            a_h = self.from_prompt(h)
        xu, vu, vv = x @ u, 2.0 * v @ u, v.square().sum(-1)
        dot, gram = x @ v.T, u.T @ u  # (b, c), (r, r)
        if torch.is_grad_enabled():
            size = max(1, _TRAINING_ELEMENTS // a_h.numel())
            if keeps_all_activations(len(x), len(w), a_w.shape[1]):
                return _cosines(dot, gram, a_h, xu, a_w, vu, vv)
            parts: list[Any] = []
            for i in range(0, len(w), size):
                n = slice(i, i + size)
                part = (dot[:, n], gram, a_h, xu, a_w[n], vu[n], vv[n])
                parts.append(checkpoint(_cosines, *part, use_reentrant=False))
            return torch.cat(parts, 1)
        out = torch.empty_like(dot)
        size = max(1, _INFERENCE_ELEMENTS // a_w.numel())
        for i in range(0, len(x), size):
            n = slice(i, i + size)
            out[n] = _cosines(dot[n], gram, a_h[n], xu[n], a_w, vu, vv)
        return out


def keeps_all_activations(b: int, c: int, rank: int) -> bool:
    """Return whether a training step holds all hidden units of the head at once."""
    return c <= max(1, _TRAINING_ELEMENTS // (b * rank))


class Adapter(nn.Module):
    """Generator, head, and the residuals of seen classes: what is trained by gradient."""

    def __init__(self, recipe: Recipe, mean_image: Tensor, w: Tensor, scale: float) -> None:
        """Build it as the recipe says, for the texts w (c, d) of the trained classes."""
        super().__init__()
        c, d = w.shape
        residual = recipe.generator == "residual"
        self.generator = (
            Generator(d, recipe.width, residual, w.mean(0), mean_image)
            if residual
            else Generator(d, recipe.width)
            if recipe.generator == "literal"
            else None
        )
        self.head = Head(d, recipe.rank, recipe.head == "residual", self.generator is not None)
        self.delta = nn.Parameter(torch.zeros(c, d)) if recipe.seen.residual else None
        self.normalise_h = recipe.normalise_h
        self.scale = scale

    def embed(self, x: Tensor) -> Tensor | None:
        """Return the AAPE h (b, d), or nothing where there is no generator."""
        return None if self.generator is None else self.generator(x)

    def general(self, x: Tensor, w: Tensor, h: Tensor | None) -> Tensor:
        """Return the logits (b, c) that any class gets, seen or new."""
        if h is not None and self.normalise_h:
            h = F.normalize(h, dim=-1)
        return self.scale * self.head(x, w, h)

    def special(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the logits (b, c) of the per-class residuals; w (c, d) of the seen classes."""
        assert self.delta is not None
        return self.scale * x @ F.normalize(w + self.delta, dim=-1).T


def _cosines(
    dot: Tensor, gram: Tensor, a_h: Tensor, xu: Tensor, a_w: Tensor, vu: Tensor, vv: Tensor
) -> Tensor:
    """Return (b, c): dot (b, c), gram (r, r), a_h and xu (b, r), a_w and vu (c, r), vv (c)."""
    a = F.relu(a_h[:, None] + a_w)  # (b, c, r): the largest tensor there is
    square = vv + ((a @ gram + vu) * a).sum(-1)
    return (dot + (a @ xu[..., None])[..., 0]) * square.clamp_min(1e-12).rsqrt()


def distillation_loss(h: Tensor, target: Tensor) -> Tensor:
    """Return the batch mean of ``‖h − p^a‖²`` (Eq. 2)."""
    return (h - target).square().sum(-1).mean()


def clip_score(x: Tensor, p: Tensor, scale: float = 2.5) -> Tensor:
    """Return the batch mean of CLIP-S, ``s·max(cos(x, p), 0)`` (Hessel et al. 2021): the reward."""
    return scale * F.cosine_similarity(x, p, dim=-1).clamp_min(0.0).mean()


def contrastive_loss(x: Tensor, p: Tensor, scale: float) -> Tensor:
    """Return CLIP's symmetric loss of n matching pairs, x and p (n, d)."""
    logits = scale * F.normalize(x, dim=-1) @ F.normalize(p, dim=-1).T
    truth = torch.arange(len(x), device=x.device)
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def zero_(layer: nn.Linear) -> nn.Linear:
    """Set a layer to zero in place, so that what it adds is nothing at the start."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def zeros(like: int | Tensor) -> Tensor:
    """Return zeros of a width, or of another tensor's shape."""
    return torch.zeros(like) if isinstance(like, int) else torch.zeros_like(like)

"""An adapter for fixed classes as one small module: all terms that are affine become one matrix.

b images, c classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..method.adapter import FittedAdapter
from ..method.problem import ClassSet
from ..method.terms import AdaptedHead, AsQuery

_CURVED = ("head", "query")  # the terms that are not affine in x


class Curved(nn.Module):
    """A term that is not affine in x, for fixed class texts (c, d)."""

    def __init__(self, term: Any, text: Tensor) -> None:
        super().__init__()
        self.kind = term.name
        if isinstance(term, AsQuery):
            query = term.query
            self.scale = term.scale
            self.register_buffer("matrix", query.matrix.float())
            self.register_buffer("mean", query.mean_image.float())
            self.register_buffer("keys", F.normalize(text.float() - query.mean_text, dim=-1))
        else:
            self.adapter = term.adapter
            self.register_buffer("text", text.float())

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (b, c)."""
        if self.kind == "query":
            h = F.normalize((x - self.mean) @ self.matrix, dim=-1)  # type: ignore[operator]
            return self.scale * h @ self.keys.T  # type: ignore[union-attr,operator]
        adapter, w = self.adapter, self.text
        h = adapter.embed(x)
        if h is not None and adapter.normalise_h:
            h = F.normalize(h, dim=-1)
        # by the definition: the faster form of training writes into a buffer, which no graph takes
        return adapter.scale * torch.einsum(
            "bd,bcd->bc", x, F.normalize(adapter.head.weights(w, h).expand(len(x), -1, -1), dim=-1)
        )


class FoldedAdapter(nn.Module):
    """Image features x (b, d), unit length, to the logits (b, c) of fixed classes.

    ``x @ weight + bias``, plus what is not affine, plus the shift of the groups of seen and new
    classes (see :func:`..method.adapter.group_shift`).
    """

    def __init__(self, fitted: FittedAdapter, classes: ClassSet) -> None:
        super().__init__()
        double = in_double(fitted)
        wide = replace(
            classes,
            template=classes.text(fitted.class_text).double(),
            ensemble=classes.ensemble.double(),
            described=classes.described.double(),
        )
        seen = classes.seen >= 0
        c, d = wide.template.shape
        rule = fitted.recipe.group_rule if bool(seen.any()) and not bool(seen.all()) else "none"
        sums = {name: (torch.zeros(d, c).double(), torch.zeros(c).double()) for name in "lj"}
        self.curved = nn.ModuleList()
        curved_weights, curved_judges = [], []
        for term, narrow in zip(double.terms, fitted.terms):
            of_seen, of_new = fitted.table.get(term.name, (0.0, 0.0))
            weight = torch.where(seen, of_seen, of_new).double()
            judges = of_new if rule == "shared" else float(term.name == "zero-shot")
            judges = judges if rule != "none" else 0.0
            if not bool(weight.any()) and not judges:
                continue
            if term.name in _CURVED:
                self.curved.append(Curved(narrow, wide.template))
                curved_weights.append(weight.float())
                curved_judges.append(judges)
                continue
            matrix, bias = affine(term, wide)
            for name, factor in (("l", weight), ("j", judges)):
                sums[name][0].add_(matrix * factor)
                sums[name][1].add_(bias * factor)
        self.register_buffer("weight", sums["l"][0].float())
        self.register_buffer("bias", sums["l"][1].float())
        self.judged = rule != "none"
        if self.judged:
            self.register_buffer("judge_weight", sums["j"][0].float())
            self.register_buffer("judge_bias", sums["j"][1].float())
            self.register_buffer("seen_ids", seen.nonzero()[:, 0])
            self.register_buffer("new_ids", (~seen).nonzero()[:, 0])
            self.register_buffer("is_seen", seen)
        self.curved_judges = curved_judges
        stacked = torch.stack(curved_weights) if curved_weights else torch.zeros(0, c)
        self.register_buffer("curved_weight", stacked)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, c)."""
        logits = x @ self.weight + self.bias  # type: ignore[operator]
        judged = x @ self.judge_weight + self.judge_bias if self.judged else None  # type: ignore[operator]
        for i, term in enumerate(self.curved):
            scores = term(x)
            logits = logits + self.curved_weight[i] * scores  # type: ignore[index]
            if judged is not None and self.curved_judges[i]:
                judged = judged + self.curved_judges[i] * scores
        if judged is None:
            return logits
        groups: Any = (self.seen_ids, self.new_ids)
        shifts = [
            judged.index_select(1, ids).logsumexp(1, keepdim=True)
            - logits.index_select(1, ids).logsumexp(1, keepdim=True)
            for ids in groups
        ]
        return logits + torch.where(self.is_seen, shifts[0], shifts[1])  # type: ignore[arg-type]


@torch.no_grad()
def affine(term: Any, classes: ClassSet) -> tuple[Tensor, Tensor]:
    """Return matrix (d, c) and bias (c,) of a term that is affine in x, found by asking it."""
    d = classes.template.shape[1]
    bias = term(torch.zeros(1, d).double(), classes)[0]
    return term(torch.eye(d).double(), classes) - bias, bias


def in_double(fitted: FittedAdapter) -> FittedAdapter:
    """Return the adapter with tensors of 64 bits, so that folding loses nothing."""
    tensors = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in fitted.tensors().items()
    }
    return FittedAdapter.load(tensors, fitted.config(), try_out=False)


def curved_terms(fitted: FittedAdapter) -> Sequence[AdaptedHead | AsQuery]:
    """Return the terms that cannot be folded."""
    return [term for term in fitted.terms if isinstance(term, AdaptedHead | AsQuery)]


class PhotoToLogits(nn.Module):
    """Pixels (b, 3, h, w) from 0 to 1 to logits: normalisation, image tower, folded adapter."""

    def __init__(self, tower: nn.Module, folded: FoldedAdapter, mean: Any, std: Any) -> None:
        super().__init__()
        self.tower, self.folded = tower, folded
        self.register_buffer("mean", torch.tensor(mean).float().reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).float().reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (b, c)."""
        x = self.tower((pixels - self.mean) / self.std)  # type: ignore[operator]
        return self.folded(F.normalize(x, dim=-1))

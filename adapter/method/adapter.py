"""A trained adapter: the modules that are kept at test time, and prediction with them.

b images, c classes, d embedding width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .discriminant import Discriminant
from .hold_out import Trust
from .model import Generator, Head
from .problem import ClassSet, FewShot
from .query import Query
from .recipe import Recipe

_PREDICT_ROWS = 4096
_QUERY = tuple(field.name for field in fields(Query))


class Adapter(nn.Module):
    """What is kept at test time: generator, head, and the terms of seen classes."""

    def __init__(self, recipe: Recipe, data: FewShot) -> None:
        super().__init__()
        d, c = data.w.shape[1], len(data.w)
        mean_text, mean_image = data.w.mean(0), data.x.mean(0)
        residual = recipe.generator == "residual"
        self.generator = (
            Generator(d, recipe.width, residual, mean_text, mean_image)
            if residual
            else Generator(d, recipe.width)
            if recipe.generator == "literal"
            else None
        )
        self.head = Head(d, recipe.rank, recipe.head == "residual", self.generator is not None)
        self.delta = nn.Parameter(torch.zeros(c, d)) if recipe.seen.residual else None
        self.normalise_h = recipe.normalise_h
        self.scale = recipe.temperature or data.scale

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


def by_group(logits: Tensor, zero_shot: Tensor, seen: Tensor) -> Tensor:
    """Let zero-shot CLIP say whether a class is seen or new, and all terms which one of them.

    ``P(i) = P_zs(group of i) · P(i | group)``. Terms that only seen classes have would otherwise
    draw images of new classes to them. Nothing changes within a group.

    Args:
        logits, zero_shot: (b, c). seen: (c,), true where a class has training images.
    """
    out = logits.clone()
    for group in (seen, ~seen):
        shift = zero_shot[:, group].logsumexp(1) - logits[:, group].logsumexp(1)
        out[:, group] += shift[:, None]
    return out


@dataclass
class FittedAdapter:
    """A trained adapter: predicts for any set of classes.

    Attributes:
        adapter: the modules. text: (c, d) template features of the seen classes.
        discriminant: the Gaussian term of seen classes, if the recipe has it; ``alpha`` its weight.
        query: the AAPE as the query, if held-out classes gave it any weight.
        trust: how zero-shot CLIP, head and query are mixed for classes without images.
        seconds: training time. history: one dict an epoch. chosen: settings that validation chose.
    """

    adapter: Adapter
    recipe: Recipe
    text: Tensor
    discriminant: Discriminant | None = None
    alpha: float = 0.0
    query: Query | None = None
    trust: Trust = field(default_factory=Trust)
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    chosen: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Number of trained parameters that are kept at test time."""
        query = 0 if self.query is None else self.query.matrix.numel()
        return query + sum(parameter.numel() for parameter in self.adapter.parameters())

    @torch.no_grad()
    def logits(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return logits (n, c) over any classes; seen ones also get their own terms."""
        adapter = self.adapter.eval()
        seen = classes.seen >= 0
        index = classes.seen[seen]
        parts = []
        for rows in x.split(_PREDICT_ROWS):
            head = adapter.general(rows, classes.template, adapter.embed(rows))
            plain = adapter.scale * rows @ classes.template.T
            query = None
            if self.query is not None:
                query = adapter.scale * self.query(rows, classes.template)
            # seen classes keep all of the head, which was trained for them
            out = self.trust.mix(torch.where(seen, head, plain), head, query)
            if seen.any() and adapter.delta is not None:
                out[:, seen] = (out[:, seen] + adapter.special(rows, self.text)[:, index]) / 2
            if seen.any() and self.discriminant is not None and self.alpha:
                out[:, seen] += self.alpha * self.discriminant(rows)[:, index]
            if self.recipe.zero_shot_groups and seen.any() and not seen.all():
                out = by_group(out, plain, seen)
            parts.append(out)
        return torch.cat(parts) if parts else x.new_zeros(0, len(classes))

    def tensors(self) -> dict[str, Tensor]:
        """Return everything to save, by name."""
        tensors = dict(self.adapter.state_dict())
        tensors["text"] = self.text
        if self.discriminant is not None:
            tensors["discriminant.weight"] = self.discriminant.weight
            tensors["discriminant.bias"] = self.discriminant.bias
        if self.query is not None:
            tensors |= {f"query.{name}": tensor for name, tensor in vars(self.query).items()}
        return tensors

    def config(self) -> dict[str, Any]:
        """Return what :meth:`load` needs besides the tensors."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "classes": len(self.text),
            "dim": self.text.shape[1],
            "scale": self.adapter.scale,
            "alpha": self.alpha,
            "trust": asdict(self.trust),
        }

    @classmethod
    def load(cls, tensors: dict[str, Tensor], config: dict[str, Any]) -> FittedAdapter:
        """Rebuild an adapter from :meth:`tensors` and :meth:`config`."""
        recipe = Recipe.parse(config["recipe"], "the recipe in adapter_config.json")
        state = dict(tensors)
        text = state.pop("text")
        weight = state.pop("discriminant.weight", None)
        bias = state.pop("discriminant.bias", None)
        query = {name: state.pop(f"query.{name}") for name in _QUERY if f"query.{name}" in state}
        none, no_labels = text[:0], torch.zeros(0, dtype=torch.long)
        classes = ClassSet(text, text, text, None, torch.arange(len(text)))
        start = FewShot(text, no_labels, None, classes, none, none, none, no_labels, 1.0, 0)
        adapter = Adapter(recipe, start)
        adapter.load_state_dict(state)
        adapter.scale = float(config["scale"])
        term = None if weight is None or bias is None else Discriminant(weight, bias)
        return cls(
            adapter,
            recipe,
            text,
            discriminant=term,
            alpha=float(config["alpha"]),
            query=Query(**query) if query else None,
            trust=Trust(**config["trust"]),
        )

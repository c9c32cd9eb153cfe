"""What a logit is a sum of: each term scores every class, the adapter's table says at what weight.

b images, c classes asked for, s trained classes, d embedding width. A term that only trained
classes have is zero for all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .convex_problem import Solution
from .discriminant import Discriminant
from .model import Adapter
from .problem import ClassSet
from .query import Query
from .recipe import Recipe

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Frame:
    """What terms are rebuilt with besides their tensors: recipe, trained texts (s, d), scale."""

    recipe: Recipe
    text: Tensor
    scale: float


class Term(Protocol):
    """One summand of the logits."""

    name: ClassVar[str]

    def __call__(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return scores (b, c) for images x (b, d)."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return what is kept, under names that no other term uses."""
        ...

    @property
    def parameters(self) -> int:
        """Number of values that training decided."""
        ...


def for_seen(scores: Tensor, classes: ClassSet) -> Tensor:
    """Spread scores of the trained classes (b, s) over those asked for (b, c); others get zero."""
    out = scores.new_zeros(len(scores), len(classes))
    seen = classes.seen >= 0
    out[:, seen] = scores[:, classes.seen[seen]]
    return out


@dataclass
class ZeroShot:
    """``s·cos(x, t_i)``: CLIP as it is."""

    scale: float
    name: ClassVar[str] = "zero-shot"
    parameters: int = 0

    def __call__(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return scores (b, c)."""
        return self.scale * x @ classes.template.T

    def tensors(self) -> dict[str, Tensor]:
        """Return nothing: the texts come with the classes."""
        return {}

    @classmethod
    def load(cls, tensors: Tensors, frame: Frame) -> ZeroShot:
        """Every adapter has it."""
        return cls(frame.scale)


@dataclass
class AdaptedHead:
    """``s·cos(x, g([w_i; h(x)]))``: generator and head (Eqs. 2 and 3)."""

    adapter: Adapter
    name: ClassVar[str] = "head"

    def __call__(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return scores (b, c)."""
        return self.adapter.general(x, classes.template, self.adapter.embed(x))

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of generator and head."""
        return {k: v for k, v in self.adapter.state_dict().items() if k != "delta"}

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return sum(p.numel() for name, p in self.adapter.named_parameters() if name != "delta")

    @classmethod
    def load(cls, tensors: Tensors, frame: Frame) -> AdaptedHead | None:
        """Rebuild generator and head, if they were kept."""
        state = {k: v for k, v in tensors.items() if k.split(".")[0] in ("generator", "head")}
        if not state:
            return None
        d = frame.text.shape[1]
        adapter = Adapter(frame.recipe, torch.zeros(d), frame.text, frame.scale)
        lacking = set(adapter.load_state_dict(state, strict=False).missing_keys) - {"delta"}
        if lacking:  # they would stay random
            raise KeyError(min(lacking))
        return cls(adapter.eval())


@dataclass
class AsQuery:
    """``s·cos(h(x), w_i)``: the AAPE as the query."""

    query: Query
    scale: float
    name: ClassVar[str] = "query"

    def __call__(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return scores (b, c)."""
        return self.scale * self.query(x, classes.template)

    def tensors(self) -> dict[str, Tensor]:
        """Return the map and both means."""
        return {f"query.{name}": tensor for name, tensor in vars(self.query).items()}

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return self.query.matrix.numel()

    @classmethod
    def load(cls, tensors: Tensors, frame: Frame) -> AsQuery | None:
        """Rebuild the query, if it was kept."""
        names = [field.name for field in fields(Query)]
        if "query.matrix" not in tensors:
            return None
        return cls(Query(**{name: tensors[f"query.{name}"] for name in names}), frame.scale)


@dataclass
class Residual:
    """``s·cos(x, w_i + δ_i)`` of trained classes."""

    text: Tensor
    delta: Tensor
    scale: float
    name: ClassVar[str] = "residual"

    def __call__(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return scores (b, c)."""
        weights = F.normalize(self.text + self.delta, dim=-1)
        return for_seen(self.scale * x @ weights.T, classes)

    def tensors(self) -> dict[str, Tensor]:
        """Return δ; the texts are the adapter's."""
        return {"delta": self.delta}

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return self.delta.numel()

    @classmethod
    def load(cls, tensors: Tensors, frame: Frame) -> Residual | None:
        """Rebuild the residuals, if they were kept."""
        delta = tensors.get("delta")
        return None if delta is None else cls(frame.text, delta, frame.scale)


@dataclass
class Gaussian:
    """``x·Σ⁻¹μ_i − ½ μ_iᵀΣ⁻¹μ_i`` of trained classes, relative to the average image."""

    discriminant: Discriminant
    name: ClassVar[str] = "gaussian"
    parameters: int = 0

    def __call__(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return scores (b, c)."""
        return for_seen(self.discriminant(x), classes)

    def tensors(self) -> dict[str, Tensor]:
        """Return weight and bias."""
        return {f"discriminant.{name}": tensor for name, tensor in vars(self.discriminant).items()}

    @classmethod
    def load(cls, tensors: Tensors, frame: Frame) -> Gaussian | None:
        """Rebuild the classifier, if it was kept."""
        if "discriminant.weight" not in tensors:
            return None
        return cls(Discriminant(tensors["discriminant.weight"], tensors["discriminant.bias"]))


@dataclass
class OwnWeights:
    """``x·v_i + b_i`` of trained classes: the shared map and what each class has of its own."""

    weight: Tensor
    bias: Tensor
    name: ClassVar[str] = "own weights"

    def __call__(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return scores (b, c)."""
        return for_seen(x @ self.weight + self.bias, classes)

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights (d, s) and biases (s,)."""
        return {"own.weight": self.weight, "own.bias": self.bias}

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return self.weight.numel() + self.bias.numel()

    @classmethod
    def load(cls, tensors: Tensors, frame: Frame) -> OwnWeights | None:
        """Rebuild the weights, if they were kept."""
        if "own.weight" not in tensors:
            return None
        return cls(tensors["own.weight"], tensors["own.bias"])


@dataclass
class SharedMap:
    """``h(x)·(t_i − t̄)`` with a linear generator ``h(x) = x M + m``, for any class."""

    matrix: Tensor
    shift: Tensor
    mean_text: Tensor
    name: ClassVar[str] = "shared map"

    @classmethod
    def of(cls, solution: Solution) -> SharedMap | None:
        """Return the map of a solved problem, if it has one."""
        if solution.shared is None:
            return None
        return cls(solution.shared, solution.shift, solution.mean_text)

    def __call__(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return scores (b, c)."""
        return (x @ self.matrix + self.shift) @ (classes.template - self.mean_text).T

    def tensors(self) -> dict[str, Tensor]:
        """Return the map, its shift and the mean text."""
        return {f"shared.{name}": tensor for name, tensor in vars(self).items()}

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return self.matrix.numel() + self.shift.numel()

    @classmethod
    def load(cls, tensors: Tensors, frame: Frame) -> SharedMap | None:
        """Rebuild the map, if it was kept."""
        if "shared.matrix" not in tensors:
            return None
        return cls(*[tensors[f"shared.{field.name}"] for field in fields(cls)])


TERMS = (ZeroShot, AdaptedHead, AsQuery, Residual, Gaussian, OwnWeights, SharedMap)

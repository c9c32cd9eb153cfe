"""What a baseline is: a function that trains on the same few shots and gives a predictor.

b images, c classes, d embedding width. Baselines with parameters per class leave new classes at
zero-shot CLIP, as their papers do in the base-to-new setting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from ..method.problem import ClassSet, FewShot


class Predictor(Protocol):
    """Something that has been fitted."""

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        ...

    chosen: dict[str, Any]

    def logits(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return logits (b, c) for x (b, d)."""
        ...


@dataclass
class Fitted:
    """A predictor made of a function; ``chosen`` are the settings that validation chose.

    ``reads`` says which features of an image the function takes: ``x`` (b, d), or those ``before``
    CLIP's last projection (b, e).
    """

    function: Callable[[Tensor, ClassSet], Tensor]
    parameters: int = 0
    chosen: dict[str, Any] = field(default_factory=dict)
    reads: Literal["x", "before"] = "x"

    def logits(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return logits (b, c) for x (b, d)."""
        return self.function(x, classes)


@dataclass(frozen=True)
class Baseline:
    """One row of the table.

    Attributes:
        id: what ``--baselines`` takes: lower case, no comma, no space.
        name: as printed. fit: trains on the shots with a seed.
        source: the paper whose formulas the test checks.
        note: what a reader must know to compare.
        deterministic: the seed changes nothing but the shots.
        before: reads features before CLIP's last projection, which are cached beside the others.
    """

    id: str
    name: str
    fit: Callable[[FewShot, int], Predictor]
    source: str
    note: str = ""
    deterministic: bool = False
    before: bool = False


def with_seen(zero_shot: Tensor, seen_logits: Tensor, classes: ClassSet) -> Tensor:
    """Put the logits of trained classes (b, c_seen) over those of zero-shot CLIP (b, c)."""
    seen = classes.seen >= 0
    out = zero_shot.clone()
    out[:, seen] = seen_logits[:, classes.seen[seen]]
    return out


def per_class(
    data: FewShot,
    seen_logits: Callable[[Tensor], Tensor],
    parameters: int = 0,
    chosen: dict[str, Any] | None = None,
) -> Fitted:
    """Return a predictor with a function (b, d) -> (b, c_seen) for trained classes."""

    def logits(x: Tensor, classes: ClassSet) -> Tensor:
        return with_seen(data.scale * x @ classes.template.T, seen_logits(x), classes)

    return Fitted(logits, parameters, chosen or {})

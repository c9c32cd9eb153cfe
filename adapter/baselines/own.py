"""A baseline of one's own, beside ours in every table, without touching a file of this folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...pipeline.errors import UserError
from ..method.problem import ClassSet, FewShot
from . import BASELINES, GROUPS, register
from .base import Baseline, Fitted, Predictor

Logits = Callable[[Tensor, ClassSet], Tensor]
_OWN: dict[str, tuple[str, str]] = {}  # whose function each is


def add_baseline(
    name: str,
    fit: Callable[[FewShot, int], Predictor | Logits],
    *,
    source: str = "",
    note: str = "",
) -> None:
    """Let ``baselines=[name]`` of :func:`aape.train` mean a function of yours; sweeps know it too,
    on one process.

    Args:
        name: as printed; one function a name, which a cell of a notebook may add again.
        fit: takes the training problem and a seed; returns a function of images x (n, d) and
            classes that gives logits (n, c), or a predictor that has such a method ``logits``.
            Logits of another shape end training with a :class:`UserError`.
        source: the paper. note: what a reader must know to compare.

    Finished trainings are reused by name, so a changed function needs a changed name.

    Raises:
        UserError: the name is taken, by aape or by you, or not fit for a comma-separated list.
    """
    if not re.fullmatch(r"[^,\s][^,]*", name):
        raise UserError(f"{name!r} is no name for a baseline.", "Leave out commas.")
    known = {word for entry in BASELINES.values() for word in (entry.id, entry.name.lower())}
    short = re.sub(r"\W+", "-", name.lower())
    owner = (getattr(fit, "__module__", ""), getattr(fit, "__qualname__", ""))
    if short in _OWN and (_OWN[short] != owner or "<lambda>" in owner[1]):
        raise UserError(
            f"A baseline {name!r} was added before.",
            "Choose another name: finished trainings are reused by it.",
        )
    if short not in _OWN and {name.lower(), short} & {*known, *GROUPS}:
        raise UserError(f"{name!r} is a baseline of aape.", "Choose another name.")

    def fitted(data: FewShot, seed: int) -> Predictor:
        found: Any = fit(data, seed)
        is_predictor = hasattr(found, "logits")
        if not (is_predictor or callable(found)):
            raise UserError(
                f"The baseline {name!r} gave {type(found).__name__} instead of a function.",
                "Return a function of x (b, d) and classes that gives logits (b, c).",
            )
        predictor: Any = found
        return _Checked(name, predictor if is_predictor else Fitted(predictor))

    _OWN[short] = owner
    register(Baseline(short, name, fitted, source, note))


class _Checked:
    """A predictor of somebody else's, whose logits must be (b, c)."""

    def __init__(self, name: str, predictor: Any) -> None:
        self._name, self._predictor = name, predictor
        self.parameters: int = getattr(predictor, "parameters", 0)
        self.chosen: dict[str, Any] = getattr(predictor, "chosen", {})
        self.reads: str = getattr(predictor, "reads", "x")

    def logits(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return logits (b, c) for x (b, d)."""
        found = self._predictor.logits(x, classes)
        wanted = (len(x), len(classes.template))
        shape = tuple(getattr(found, "shape", ()))
        if not isinstance(found, Tensor) or shape != wanted:
            what = f"logits {shape}" if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"The baseline {self._name!r} gave {what} instead of logits {wanted}.",
                "It gives a tensor (b, c): a row a photo, a column a class.",
            )
        return found

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
_OWN: set[str] = set()


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
        name: as printed. A later one of the same name takes its place; those of aape keep theirs.
        fit: takes the training problem and a seed; returns a function of images x (n, d) and
            classes that gives logits (n, c), or a predictor that has such a method ``logits``.
        source: the paper. note: what a reader must know to compare.

    Finished trainings are reused by name, so a changed function needs a changed name.

    Raises:
        UserError: the name is one of aape's own, or not fit for a comma-separated list.
    """
    if not re.fullmatch(r"[^,\s][^,]*", name):
        raise UserError(f"{name!r} is no name for a baseline.", "Leave out commas.")
    known = {word for entry in BASELINES.values() for word in (entry.id, entry.name.lower())}
    if name not in _OWN and (name.lower() in known or name.lower() in GROUPS):
        raise UserError(f"{name!r} is a baseline of aape.", "Choose another name.")

    def fitted(data: FewShot, seed: int) -> Predictor:
        found: Any = fit(data, seed)
        return found if hasattr(found, "logits") else Fitted(found)

    _OWN.add(name)
    register(Baseline(re.sub(r"\W+", "-", name.lower()), name, fitted, source, note))

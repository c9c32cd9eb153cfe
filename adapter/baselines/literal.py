"""The paper's own recipe as a row beside ours, for whom the default is not the method."""

from __future__ import annotations

from ..method.adapter import FittedAdapter
from ..method.problem import FewShot
from ..method.recipe import LITERAL
from ..method.train import fit
from .base import Baseline


def literal(data: FewShot, seed: int) -> FittedAdapter:
    """``recipe: literal``: Eqs. 1 to 4 with nothing added."""
    return fit(data, LITERAL, seed)


BASELINES = [
    Baseline(
        "literal",
        "literal recipe",
        literal,
        "Huang et al. 2024",
        "the paper's recipe on cached features",
    )
]

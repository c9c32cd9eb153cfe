"""Our other recipes as rows beside ours: what the default is compared with on the same shots."""

from __future__ import annotations

from ..method.adapter import FittedAdapter
from ..method.problem import FewShot
from ..method.recipe import LITERAL, STAGED
from ..method.train import fit
from .base import Baseline


def literal(data: FewShot, seed: int) -> FittedAdapter:
    """``recipe: literal``: Eqs. 1 to 4 with nothing added."""
    return fit(data, LITERAL, seed)


def staged(data: FewShot, seed: int) -> FittedAdapter:
    """``recipe: staged``: the default of earlier versions, trained by gradient."""
    return fit(data, STAGED, seed)


BASELINES = [
    Baseline(
        "literal",
        "literal recipe",
        literal,
        "Huang et al. 2024",
        "the paper's recipe on cached features",
    ),
    Baseline("staged", "staged recipe", staged, "Huang et al. 2024", "our former default"),
]

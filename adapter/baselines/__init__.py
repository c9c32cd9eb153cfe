"""Every method that the table prints beside ours, one file each, on the same features and shots."""

from __future__ import annotations

from ...pipeline.errors import unknown_name
from .base import Baseline, Fitted, Predictor
from .zero_shot import BASELINES as ZERO_SHOT

BASELINES: dict[str, Baseline] = {baseline.name: baseline for baseline in [*ZERO_SHOT]}
GROUPS = {
    "all": list(BASELINES),
    "fast": [baseline.name for baseline in ZERO_SHOT],
    "none": [],
}


def choose_baselines(names: list[str]) -> list[Baseline]:
    """Return baselines by name; ``all``, ``fast`` (no training) and ``none`` name groups.

    Raises:
        UserError: no baseline has that name.
    """
    chosen: dict[str, Baseline] = {}
    for name in names:
        if name not in GROUPS and name not in BASELINES:
            raise unknown_name("baseline", name, [*GROUPS, *BASELINES])
        for member in GROUPS.get(name, [name]):
            chosen[member] = BASELINES[member]
    return list(chosen.values())


__all__ = ["BASELINES", "GROUPS", "Baseline", "Fitted", "Predictor", "choose_baselines"]

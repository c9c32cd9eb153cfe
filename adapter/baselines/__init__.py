"""Every method that the table prints beside ours, on the same features and shots."""

from __future__ import annotations

from ...pipeline.errors import unknown_name
from . import (
    feature_adapters,
    gda,
    linear_probe,
    literal,
    lp_plus_plus,
    prompt_learning,
    tip_adapter,
    zero_shot,
)
from .base import Baseline, Fitted, Predictor

_LISTS = [
    zero_shot.BASELINES,
    linear_probe.BASELINES,
    tip_adapter.BASELINES,
    feature_adapters.BASELINES,
    gda.BASELINES,
    lp_plus_plus.BASELINES,
    literal.BASELINES,
    prompt_learning.BASELINES,
]
BASELINES: dict[str, Baseline] = {entry.name: entry for entries in _LISTS for entry in entries}
_SLOW = [entry.name for entry in prompt_learning.BASELINES]
GROUPS = {
    "all": [name for name in BASELINES if name not in ("literal recipe", *_SLOW)],
    "slow": _SLOW,
    "fast": [entry.name for entry in zero_shot.BASELINES],
    "literal": ["literal recipe"],
    "none": [],
}


def choose_baselines(names: list[str]) -> list[Baseline]:
    """Return baselines by name; ``all``, ``fast`` (no training), ``slow`` (in the text tower),
    ``literal`` and ``none`` are groups.

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

"""Every method that the table prints beside ours, on the same features and shots.

>>> [baseline.name for baseline in choose_baselines(["gda-nearest", "CLAP"])]
['GDA, nearest images', 'CLAP']
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...pipeline.errors import unknown_name
from . import (
    amu_tuning,
    ape,
    feature_adapters,
    gda,
    linear_probe,
    lp_plus_plus,
    own_recipes,
    proker,
    prolip,
    prompt_learning,
    timo,
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
    ape.BASELINES,
    proker.BASELINES,
    timo.BASELINES,
    amu_tuning.BASELINES,
    own_recipes.BASELINES,
    prompt_learning.BASELINES,
    prolip.BASELINES,
]
BASELINES: dict[str, Baseline] = {entry.name: entry for entries in _LISTS for entry in entries}
_RECIPES = [entry.name for entry in own_recipes.BASELINES]
_SLOW = [entry.name for entry in prompt_learning.BASELINES]
GROUPS = {
    "all": [
        entry.name
        for entry in BASELINES.values()
        if not entry.before and entry.name not in (*_RECIPES, *_SLOW)
    ],
    "slow": _SLOW,
    "fast": [entry.name for entry in zero_shot.BASELINES],
    "literal": ["literal recipe"],
    "staged": ["staged recipe"],
    "none": [],
}
_BY_WORD = {word.lower(): entry for entry in BASELINES.values() for word in (entry.id, entry.name)}


def register(entry: Baseline) -> None:
    """Let a baseline be chosen by its id or name; in the group ``all`` are those of aape alone."""
    BASELINES[entry.name] = entry
    _BY_WORD.update({word.lower(): entry for word in (entry.id, entry.name)})


def choose_baselines(names: Sequence[str]) -> list[Baseline]:
    """Return baselines by id or printed name, in upper or lower case.

    ``all``, ``fast`` (no training), ``slow`` (in the text tower), ``literal``, ``staged`` and
    ``none`` are groups. A printed name with a comma is found in its two parts too, as a
    comma-separated option gives them.

    Raises:
        UserError: no baseline has that name; the ids are listed.
    """
    chosen: dict[str, Baseline] = {}
    for word in _joined([name.strip() for name in names]):
        if word.lower() in GROUPS:
            found = [BASELINES[name] for name in GROUPS[word.lower()]]
        elif word.lower() in _BY_WORD:
            found = [_BY_WORD[word.lower()]]
        else:
            ids = [entry.id for entry in BASELINES.values()]
            raise unknown_name("baseline", word.lower(), dict.fromkeys([*GROUPS, *ids]))
        chosen |= {entry.id: entry for entry in found}
    return list(chosen.values())


def _joined(words: Sequence[str]) -> Iterator[str]:
    """Put the parts of a printed name that has a comma together again."""
    rest = list(words)
    while rest:
        both = ", ".join(rest[:2])
        if len(rest) > 1 and both.lower() in _BY_WORD:
            del rest[:2]
            yield both
        else:
            yield rest.pop(0)


__all__ = ["BASELINES", "GROUPS", "Baseline", "Fitted", "Predictor", "choose_baselines"]

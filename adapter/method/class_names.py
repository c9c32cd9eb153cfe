"""Which name stands for a class: of those it goes by, the one that training photos fit best.

REAL (Parashar et al., CVPR 2024) takes the name that is most frequent in the texts of the web,
which CLIP has seen most often. Here the photos say it: the name under which untrained CLIP is least
surprised. n images, c classes, m other names, d embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .temperature import best_temperature, cross_entropies

_SWEEPS = 3


@dataclass(frozen=True)
class OtherNames:
    """Other names of classes, as texts.

    Attributes:
        owner: (m,) the class that a name belongs to. text: (m, d), unit length.
    """

    owner: Tensor
    text: Tensor


def choose_names(
    x: Tensor, y: Tensor, t: Tensor, others: OtherNames, scale: float, doubt: float = 1.0
) -> list[int]:
    """Return for each class the position of the name in ``others`` that stands for it, or -1.

    A class leaves its given name for another one only where the cross-entropy of zero-shot CLIP
    falls by more than ``doubt`` standard errors over the photos that the change touches; the name
    that gains most is taken. Classes are gone through up to three times, since the name of one
    changes what the photos of its neighbours are taken for.

    Args:
        x: (n, d) training photos. y: (n,) their classes. t: (c, d) texts of the given names.
        others: names to choose from. scale: CLIP's factor of cosines.
        doubt: how sure a gain must be.
    """
    chosen = [-1] * len(t)
    logits = scale * x @ t.T
    candidates = scale * x @ others.text.T  # (n, m)
    given = logits.clone()
    warm = best_temperature([(logits, y)]) if len(y) else 1.0
    for _ in range(_SWEEPS):
        before = list(chosen)
        for label in sorted(set(others.owner.tolist())):
            if not bool((y == label).any()):
                continue  # a class without photos keeps its name
            names = torch.nonzero(others.owner == label)[:, 0].tolist()
            chosen[label], logits[:, label] = _best(
                logits, y, warm, label, given[:, label], candidates, names, doubt
            )
        if chosen == before:
            break
    return chosen


def _best(
    logits: Tensor,
    y: Tensor,
    warm: float,
    label: int,
    given: Tensor,
    candidates: Tensor,
    names: list[int],
    doubt: float,
) -> tuple[int, Tensor]:
    """Return the best name of one class and its logits (n,), all other classes as they are."""
    start = logits.clone()
    start[:, label] = given
    base = cross_entropies(warm * start, y)  # (n,)
    best, column, most = -1, given, 0.0
    for name in names:
        start[:, label] = candidates[:, name]
        gain = base - cross_entropies(warm * start, y)
        # photos of other classes that hardly see this one say nothing about it
        touched = (gain.abs() > 1e-3) | (y == label)
        some = gain[touched]
        error = float(some.std()) * len(some) ** 0.5 if len(some) > 1 else float("inf")
        total = float(some.sum())
        if total > doubt * error and total > most:
            best, column, most = name, candidates[:, name], total
    return best, column

"""Seeds of one training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Seeds:
    """Separate seeds: of the initial weights, and of the order of batches and views."""

    init: int
    order: int

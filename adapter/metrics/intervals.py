"""How sure a table is: paired bootstrap intervals, and a plain word about small test sets."""

from __future__ import annotations

import numpy as np

SMALL = 1000


def bootstrap_difference(
    difference: np.ndarray, repeats: int = 2000, scale: float = 100.0
) -> list[float]:
    """Return the 95 % interval of the mean of paired differences (n,), times ``scale``."""
    rng = np.random.default_rng(0)
    n = len(difference)
    size = max(1, min(repeats, 20_000_000 // max(n, 1)))
    means = np.concatenate(
        [
            difference[rng.integers(0, n, (min(64, size - start), n))].mean(1)
            for start in range(0, size, 64)
        ]
    )
    low, high = np.percentile(scale * means, [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


def small_set_note(count: int, what: str) -> list[str]:
    """Return the note that a table on few examples must carry."""
    if count >= SMALL:
        return []
    return [f"only {count} test {what}: read the intervals, not the second digit"]

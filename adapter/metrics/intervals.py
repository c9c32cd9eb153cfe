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


def half_width(share: float, count: int) -> float:
    """Return half the 95 % interval of a share of ``count`` examples (Wilson 1927).

    Not the usual one, which is empty where all or none are right.

    >>> round(half_width(0.75, 20), 3), round(half_width(1.0, 20), 3)
    (0.178, 0.081)
    """
    if not count:
        return float("nan")
    z = 1.96
    inner = share * (1 - share) / count + z**2 / (4 * count**2)
    return float(z / (1 + z**2 / count) * np.sqrt(inner))


def small_set_note(count: int, what: str) -> list[str]:
    """Return the note that a table on few examples must carry."""
    if count >= SMALL:
        return []
    return [f"only {count} test {what}: read the intervals, not the second digit"]

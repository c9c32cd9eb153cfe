"""How sure a table is: paired bootstrap intervals, and a plain word about small test sets.

Two questions, two draws. :func:`paired_bootstrap` asks whether the better method would win on other
images and other seeds, for any figure of a table (H of base and new is no mean over images).
:func:`bootstrap_difference` asks it of a mean over images whose scores were averaged over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

SMALL = 1000
_KEPT = 20_000_000  # counts that may stay in memory, 4 bytes each
_DRAWN = 20_000_000  # images, in all resamples of a mean together
Statistic = Callable[[Sequence[np.ndarray]], np.ndarray]


def paired_bootstrap(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    statistic: Statistic,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the interval of ``statistic(ours) - statistic(theirs)``, averaged over seeds.

    Each resample draws test images with replacement, separately in each test set, and seeds with
    replacement, the same for both methods (hence paired). With one seed only images are drawn.

    Args:
        ours: one array (seeds, images) of right and wrong a test set, such as base and new.
        theirs: the same for the other method, same images in the same order, same seeds.
        statistic: percentages (…,) a test set to a number (…,), such as H of base and new.
        resamples: how many.
        level: of the interval.
        seed: of the resampling.

    Returns:
        Lower and upper end, in the unit of the statistic.
    """
    differences = []
    sizes = tuple(array.shape[1] for array in ours)
    known = _kept_draws if resamples * sum(sizes) <= _KEPT else _draws
    for drawn_seeds, weights in known(sizes, ours[0].shape[0], resamples, seed):
        pair = []
        for method in (ours, theirs):
            values = [
                # sums of right and wrong are exact in single precision
                100 * (weight @ array.T.astype(np.float32)).astype(np.float64) / array.shape[1]
                if array.dtype == bool
                else 100 * (weight.astype(np.float64) @ array.T.astype(np.float64)) / array.shape[1]
                for weight, array in zip(weights, method)
            ]
            value = statistic(values)
            pair.append(np.take_along_axis(value, drawn_seeds, axis=1).mean(1))
        differences.append(pair[0] - pair[1])
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(differences), [tail, 1 - tail])
    return float(low), float(high)


def _draws(
    sizes: tuple[int, ...], seeds: int, resamples: int, seed: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yield seeds drawn (r, seeds) and how often each image is, (r, n) a test set, in pieces."""
    generator = np.random.default_rng(seed)
    step = max(1, 4_000_000 // max(sizes))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn_seeds = generator.integers(seeds, size=(count, seeds))
        weights = [
            generator.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float32)
            for n in sizes
        ]
        yield drawn_seeds, weights


@lru_cache(maxsize=4)
def _kept_draws(
    sizes: tuple[int, ...], seeds: int, resamples: int, seed: int
) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Return the same as a list: every method of a table is compared by the same draws."""
    return list(_draws(sizes, seeds, resamples, seed))


def bootstrap_difference(
    difference: np.ndarray, repeats: int = 2000, scale: float = 100.0
) -> list[float]:
    """Return the 95 % interval of the mean of paired differences (n,), times ``scale``."""
    rng = np.random.default_rng(0)
    n = len(difference)
    size = max(1, min(repeats, _DRAWN // max(n, 1)))
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

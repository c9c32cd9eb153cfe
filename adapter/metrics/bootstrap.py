"""Paired bootstrap intervals: would the better method win on other images and other seeds?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

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
    generator = np.random.default_rng(seed)
    differences = []
    step = max(1, 4_000_000 // max(array.shape[1] for array in ours))
    seeds = ours[0].shape[0]
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn_seeds = generator.integers(seeds, size=(count, seeds))
        pair = []
        weights = []
        for array in ours:
            n = array.shape[1]
            weights.append(generator.multinomial(n, np.full(n, 1 / n), size=count))
        for method in (ours, theirs):
            values = [
                100 * (weight @ array.T.astype(np.float64)) / array.shape[1]  # (count, seeds)
                for weight, array in zip(weights, method)
            ]
            value = statistic(values)
            pair.append(np.take_along_axis(value, drawn_seeds, axis=1).mean(1))
        differences.append(pair[0] - pair[1])
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(differences), [tail, 1 - tail])
    return float(low), float(high)

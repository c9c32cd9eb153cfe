"""How far a classifier's confidence is from its accuracy."""

from __future__ import annotations

import numpy as np


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 15
) -> float:
    """Return ECE in percent (Guo et al. 2017): bins of equal width, weighted by their images.

    Args:
        confidence: (n,) probability of the predicted class, in [0, 1].
        correct: (n,) whether the prediction is right.
        bins: number of bins; bin m holds ``(m/bins, (m+1)/bins]``, the first holds 0 too.

    >>> expected_calibration_error(np.array([0.8, 0.8]), np.array([True, False]))
    30.000000000000004
    """
    if not len(confidence):
        return float("nan")
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    weight = np.bincount(index, minlength=bins)
    gap = np.bincount(index, correct.astype(float) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / weight.sum() * 100)

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


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> dict[str, list]:
    """Return the reliability diagram of the same bins: only those that hold images.

    Args:
        confidence, correct, bins: as in :func:`expected_calibration_error`.

    Returns:
        ``images``, mean ``confidence`` and ``accuracy`` in percent, a bin each, least sure first.

    >>> reliability(np.array([0.8, 0.8]), np.array([True, False]))
    {'images': [2], 'confidence': [80.0], 'accuracy': [50.0]}
    """
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(index, minlength=bins)
    held = images > 0
    sure = np.bincount(index, confidence, minlength=bins)[held] / images[held]
    right = np.bincount(index, correct.astype(float), minlength=bins)[held] / images[held]
    return {
        "images": images[held].tolist(),
        "confidence": [round(100 * float(value), 3) for value in sure],
        "accuracy": [round(100 * float(value), 3) for value in right],
    }

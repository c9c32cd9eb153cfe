"""Accuracy in all its forms. n images, c classes; labels and predictions are positions."""

from __future__ import annotations

import numpy as np


def accuracy(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of images that are right, in percent; ``nan`` for no images.

    >>> accuracy(np.array([0, 1, 1]), np.array([0, 1, 0]))
    66.66666666666666
    """
    return float(np.mean(predicted == truth) * 100) if len(truth) else float("nan")


def per_class_accuracy(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Return the accuracy (c,) among the images of each class in percent, ``nan`` where none is."""
    total = np.bincount(truth, minlength=classes).astype(float)
    right = np.bincount(truth[predicted == truth], minlength=classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * right / total


def confusion_matrix(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Return counts (c, c): row is the true class, column the predicted one."""
    flat = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def most_confused(matrix: np.ndarray, count: int = 10) -> list[tuple[int, int, int]]:
    """Return the largest off-diagonal cells as (true class, predicted class, images)."""
    off = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-off, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, matrix.shape)
    return [(int(i), int(j), int(off[i, j])) for i, j in zip(rows, columns) if off[i, j] > 0]


def harmonic_mean(base: float, new: float) -> float:
    """Return H of base-to-new generalisation, 0 where both are 0.

    >>> harmonic_mean(60.0, 40.0)
    48.0
    """
    return 2 * base * new / (base + new) if base + new > 0 else 0.0

"""Photos for the report: what went wrong, each beside a photo of what it was taken for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .outcomes import Outcome
from .protocols import TestSet

_PAIRS = 6  # a test set


def examples(outcome: Outcome, tests: Sequence[TestSet]) -> list[dict[str, Any]]:
    """Return pairs of a wrong and a right photo: the surest mistakes, one a pair of classes.

    The right photo is of the class that was answered, so that a reader sees what was confused;
    where that class has none, it is of the true class. Test sets without photos give nothing.
    """
    found: list[dict[str, Any]] = []
    for i, test in enumerate(tests):
        if test.images.paths:
            found += _pairs(test, outcome.predicted[i], outcome.confidence[i])
    if len(tests) == 1:
        for sample in found:
            del sample["set"]
    return found


def _pairs(test: TestSet, predicted: np.ndarray, sure: np.ndarray) -> list[dict[str, Any]]:
    truth = test.images.y
    order = np.argsort(-sure, kind="stable")
    best: dict[int, int] = {}  # the surest right photo of each class
    for row in order:
        if predicted[row] == truth[row]:
            best.setdefault(int(truth[row]), int(row))
    rows: list[dict[str, Any]] = []
    told: set[tuple[int, int]] = set()
    for row in map(int, order):
        pair = int(truth[row]), int(predicted[row])
        if pair[0] == pair[1] or pair in told:
            continue
        told.add(pair)
        rows.append(_sample(test, predicted, sure, row))
        beside = best.get(pair[1], best.get(pair[0]))
        if beside is not None:
            rows.append(_sample(test, predicted, sure, beside))
        if len(told) == _PAIRS:
            break
    return rows


def _sample(test: TestSet, predicted: np.ndarray, sure: np.ndarray, row: int) -> dict[str, Any]:
    truth, answer = int(test.images.y[row]), int(predicted[row])
    return {
        "image": str(test.images.paths[row]),
        "truth": test.names[truth],
        "output": test.names[answer],
        "confidence": f"{100 * float(sure[row]):.0f} %",
        "set": test.name,
        "good": truth == answer,
    }

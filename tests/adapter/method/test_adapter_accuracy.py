"""Accuracy, calibration and bootstrap against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from aape.adapter.metrics import intervals
from aape.adapter.metrics.accuracy import (
    accuracy,
    confusion_matrix,
    harmonic_mean,
    most_confused,
    per_class_accuracy,
)
from aape.adapter.metrics.calibration import expected_calibration_error
from aape.adapter.metrics.intervals import paired_bootstrap

PREDICTED, TRUTH = np.array([0, 1, 1, 2, 0]), np.array([0, 1, 2, 2, 2])


def test_accuracy():
    assert accuracy(PREDICTED, TRUTH) == pytest.approx(60)
    assert np.isnan(accuracy(np.zeros(0), np.zeros(0)))
    per_class = per_class_accuracy(PREDICTED, TRUTH, 4)
    np.testing.assert_allclose(per_class, [100, 100, 100 / 3, np.nan])


def test_confusion():
    matrix = confusion_matrix(PREDICTED, TRUTH, 3)
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [0, 1, 0], [1, 1, 1]])
    assert most_confused(matrix) == [(2, 0, 1), (2, 1, 1)]


def test_harmonic_mean():
    assert harmonic_mean(84.72, 77.54) == pytest.approx(80.97, abs=0.01)  # the paper's own row
    assert harmonic_mean(0, 0) == 0


def test_calibration():
    confidence = np.array([1.0, 1.0, 0.55, 0.55, 0.0])
    correct = np.array([True, False, True, False, False])
    # bins: {1, 1}: gap 0.5, {0.55, 0.55}: gap 0.05, {0}: gap 0
    expected = 100 * (2 * 0.5 + 2 * 0.05) / 5
    assert expected_calibration_error(confidence, correct, bins=10) == pytest.approx(expected)


def h(values):
    base, new = values
    return 2 * base * new / (base + new)


def test_bootstrap_of_equal_methods_is_zero():
    right = np.random.default_rng(0).random((3, 50)) < 0.7
    assert paired_bootstrap([right, right], [right, right], h) == (0.0, 0.0)


def test_bootstrap_separates_and_does_not_separate():
    generator = np.random.default_rng(1)
    base = generator.random((2, 400)) < 0.5
    better = base | (generator.random((2, 400)) < 0.3)
    low, high = paired_bootstrap([better], [base], lambda v: v[0])
    gain = 100 * (better.mean() - base.mean())
    assert 0 < low < gain < high
    other = generator.random((2, 400)) < 0.5
    low, high = paired_bootstrap([other], [base], lambda v: v[0])
    assert low < 0 < high


def test_bootstrap_matches_the_plain_loop():
    generator = np.random.default_rng(2)
    a, b = generator.random((1, 30)) < 0.8, generator.random((1, 30)) < 0.6
    draws = generator.integers(30, size=(20000, 30))
    difference = 100 * (a[0][draws].mean(1) - b[0][draws].mean(1))
    expected = np.quantile(difference, [0.025, 0.975])
    found = paired_bootstrap([a], [b], lambda v: v[0], resamples=20000)
    np.testing.assert_allclose(found, expected, atol=1.0)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float64])
def test_intervals_are_the_same_whether_draws_are_kept_or_not(kind, monkeypatch):
    random = np.random.default_rng(5)
    ours, theirs = (
        [(random.random((3, n)) < share).astype(kind) for n in (200, 300)] for share in (0.6, 0.5)
    )
    kept = paired_bootstrap(ours, theirs, h)
    assert paired_bootstrap(ours, theirs, h) == kept
    monkeypatch.setattr(intervals, "_KEPT", 0)
    assert paired_bootstrap(ours, theirs, h) == kept
    assert paired_bootstrap(theirs, ours, h) == pytest.approx((-kept[1], -kept[0]))
    assert kept[0] < 10 < kept[1] < 25

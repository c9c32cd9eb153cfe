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
from aape.adapter.metrics.calibration import expected_calibration_error, reliability
from aape.adapter.metrics.intervals import bootstrap_difference, paired_bootstrap, small_set_note

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


@pytest.mark.parametrize("bins", [10, 15])
def test_calibration_is_the_sum_over_bins_of_the_definition(bins):
    """Guo et al. 2017, Eq. 3: bin m holds ((m - 1) / M, m / M], each weighs as its images."""
    generator = np.random.default_rng(3)
    confidence = generator.random(500).round(2)
    correct = generator.random(500) < confidence**2
    expected, diagram = 0.0, []
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        inside |= (m == 1) & (confidence == 0)
        gap = abs(correct[inside].mean() - confidence[inside].mean())
        expected += 100 * inside.sum() / 500 * gap
        diagram.append(
            (inside.sum(), confidence[inside].mean() * 100, correct[inside].mean() * 100)
        )
    found = reliability(confidence, correct, bins)
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(expected)
    images, sure, right = (list(column) for column in zip(*diagram))
    assert found["images"] == images
    assert found["confidence"] == [round(value, 3) for value in sure]
    assert found["accuracy"] == [round(value, 3) for value in right]


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


def test_the_bootstrap_of_a_constant_is_the_constant():
    """Whatever is drawn, the mean of equal values is that value: to twelve digits, not to seven."""
    for kind, value in ((np.float64, 0.1), (np.uint8, 1), (bool, True)):
        ours, theirs = np.full((2, 30), value, kind), np.zeros((2, 30), kind)
        found = paired_bootstrap([ours], [theirs], lambda v: v[0])
        assert found == pytest.approx((100 * value, 100 * value), rel=1e-12)


def test_the_interval_of_a_mean_is_that_of_its_normal_limit():
    difference = np.random.default_rng(0).normal(0.02, 0.5, 400)
    low, high = bootstrap_difference(difference)
    mean, error = 100 * difference.mean(), 100 * difference.std() / 20
    assert low == pytest.approx(mean - 1.96 * error, abs=0.12 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.12 * error)
    assert bootstrap_difference(difference, scale=1.0) == pytest.approx(
        [low / 100, high / 100], abs=1e-4
    )
    assert bootstrap_difference(np.full(7, 0.25)) == [25.0, 25.0]


@pytest.mark.parametrize(("n", "repeats"), [(30, 1000), (1, 3), (300, 200), (40_000, 5)])
def test_resamples_in_pieces_are_resamples_at_once(n, repeats, monkeypatch):
    """And a large set has fewer, so that none takes longer than so many draws."""
    monkeypatch.setattr(intervals, "_DRAWN", 30_000)
    difference = np.random.default_rng(1).random(n)
    count = max(1, min(repeats, 30_000 // n))
    drawn = np.random.default_rng(0).integers(0, n, (count, n))
    expected = np.percentile(100 * difference[drawn].mean(1), [2.5, 97.5])
    assert bootstrap_difference(difference, repeats) == [round(x, 4) for x in expected.tolist()]


def test_small_sets_are_said_to_be_small():
    assert small_set_note(1000, "images") == []
    assert "only 999 test images" in small_set_note(999, "images")[0]

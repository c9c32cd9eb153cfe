"""What a table of classification keeps for the report: pairs of photos, and reliability."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from aape.adapter.classification.data import LabelledImages
from aape.adapter.classification.examples import examples
from aape.adapter.classification.outcomes import (
    Facts,
    Outcome,
    chosen_temperature,
    load_outcome,
    predict,
    save_outcome,
)
from aape.adapter.classification.protocols import TestSet
from aape.adapter.method.problem import ClassSet
from aape.adapter.metrics.calibration import expected_calibration_error, reliability


def classes(seen: list[int]) -> ClassSet:
    text = torch.eye(3)[: len(seen)]
    return ClassSet(text, text, text, None, torch.tensor(seen))


def photo_set(y: list[int], seen: list[int] | None = None, paths: bool = True) -> TestSet:
    photos = tuple(Path(f"{i}.jpg") for i in range(len(y))) if paths else ()
    images = LabelledImages(np.zeros((len(y), 3), np.float32), np.array(y), None, photos)
    return TestSet("base", images, classes(seen or [0, 1, 2]), ["a", "b", "c"])


def test_each_mistake_stands_beside_what_it_was_taken_for() -> None:
    test = photo_set([0, 0, 1, 1, 2, 0])
    predicted = np.array([1, 0, 1, 2, 1, 1])
    sure = np.array([0.9, 0.8, 0.7, 0.6, 0.95, 0.99])
    found = examples(Outcome([predicted], [sure], Facts(0, 0)), [test])
    told = [(Path(s["image"]).stem, s["truth"], s["output"], s["good"]) for s in found]
    assert told == [
        ("5", "a", "b", False),  # the surest; photo 0 is the same confusion once more
        ("2", "b", "b", True),
        ("4", "c", "b", False),
        ("2", "b", "b", True),
        ("3", "b", "c", False),
        ("2", "b", "b", True),  # no c is right: beside it stands one of its own class
    ]
    assert found[0]["confidence"] == "99 %"


def test_features_without_photos_give_no_examples() -> None:
    outcome = Outcome([np.array([1])], [np.array([0.9])], Facts(0, 0))
    assert examples(outcome, [photo_set([0], paths=False)]) == []


def test_reliability_has_the_same_bins_as_the_error() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.2, 1, 500)
    right = rng.random(500) < sure**2
    bins = reliability(sure, right)
    n, gap = np.array(bins["images"]), np.array(bins["confidence"]) - np.array(bins["accuracy"])
    assert n.sum() == 500
    assert (n * np.abs(gap)).sum() / 500 == pytest.approx(
        expected_calibration_error(sure, right), abs=1e-3
    )


def test_before_calibration_is_without_the_chosen_temperature(tmp_path: Path) -> None:
    chosen = {"seen": {"temperature": 2.0}, "new": {"temperature": 4.0}}
    assert chosen_temperature(chosen, classes([0, 1, 2])) == 2.0
    assert chosen_temperature(chosen, classes([-1, -1])) == 4.0
    assert chosen_temperature(chosen, classes([0, -1])) is None, "two temperatures mix"
    assert chosen_temperature({"alpha": 1}, classes([0, 1])) is None

    class Fixed:
        def logits(self, x: torch.Tensor, classes: ClassSet) -> torch.Tensor:
            return torch.tensor([[2.0, 0.0, 0.0]]).expand(len(x), 3)

    made = predict(Fixed(), [photo_set([0, 1])], "cpu", Facts(0, 0, chosen))  # type: ignore[arg-type]
    raw = float(torch.tensor([1.0, 0.0, 0.0]).softmax(0)[0])
    assert made.uncalibrated[0].tolist() == pytest.approx([raw, raw])
    save_outcome(tmp_path / "a.safetensors", made)
    again = load_outcome(tmp_path / "a.safetensors")
    assert again is not None
    assert np.array_equal(again.uncalibrated[0], made.uncalibrated[0])
    made.uncalibrated = []  # as older runs kept it
    save_outcome(tmp_path / "b.safetensors", made)
    old = load_outcome(tmp_path / "b.safetensors")
    assert old is not None
    assert (len(old.predicted), old.uncalibrated) == (1, [])

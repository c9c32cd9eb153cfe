"""Sessions of classes: what is told apart after each, and the columns, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aape.adapter.baselines.base import Fitted
from aape.adapter.classification.data import ClassificationData, ClassTexts, LabelledImages
from aape.adapter.classification.incremental import _sessions, _summary, sessions_of
from aape.pipeline.errors import UserError

PARTS = [[0, 1, 2], [3, 4]]


def data() -> ClassificationData:
    """Five classes, class i with i + 1 test images, each image the unit vector of its class."""
    y = np.repeat(np.arange(5), np.arange(5) + 1)
    x = np.eye(5, dtype=np.float32)
    images = LabelledImages(x[y], y)
    texts = ClassTexts(list("abcde"), x, x, x[:, None], np.ones((5, 1), bool))
    return ClassificationData(
        "toy", "an encoder", texts, images, images, images, [0, 1, 2], [3, 4], 1, 0
    )


def test_points_of_a_curve_by_hand() -> None:
    """A predictor that is right about every class but 1 and 3, which it takes for class 0."""
    learned = []

    def learn(upto: list[int], session: list[int]) -> Fitted:
        learned.append((upto, session))

        def logits(x: torch.Tensor, classes: object) -> torch.Tensor:
            scores = x[:, : len(upto)].clone()
            scores[:, [i for i in (1, 3) if i < len(upto)]] = 0
            scores[:, 0] += 0.5
            return scores

        return Fitted(logits)

    first, last = _sessions(data(), PARTS, learn)
    assert learned == [([0, 1, 2], [0, 1, 2]), ([0, 1, 2, 3, 4], [3, 4])]
    # images of classes 0 to 4: 1, 2, 3, 4, 5; those of 1 and 3 are wrong
    assert first == pytest.approx({"all": 100 * 4 / 6, "new": 100 * 4 / 6, "base": 100 * 4 / 6})
    assert last == pytest.approx(
        {"all": 60, "old": 100 * 4 / 6, "new": 100 * 5 / 9, "base": 100 * 4 / 6, "novel": 500 / 9}
    )
    row = _summary([first, last])
    base, novel = 400 / 6, 500 / 9
    assert row == pytest.approx(
        {"1": base, "2": 60, "average": (base + 60) / 2, "last": 60, "base": base, "novel": novel,
         "H": 2 * base * novel / (base + novel), "kept": 100 * 60 / base}
    )  # fmt: skip


def test_nothing_right_in_the_first_session_is_no_division_by_zero() -> None:
    point = {"all": 0.0, "base": 0.0, "novel": 0.0}
    row = _summary([point, point])
    assert (row["kept"], row["H"], row["average"]) == (0, 0, 0)


def test_sessions_are_in_order_and_as_equal_as_can_be() -> None:
    parts = sessions_of(23)
    assert [i for part in parts for i in part] == list(range(23))
    assert [len(part) for part in parts] == [3] * 3 + [2] * 7
    assert [len(part) for part in sessions_of(20)] == [2] * 10
    assert sessions_of(4, 2) == [[0, 1], [2, 3]]
    with pytest.raises(UserError, match="there are 19 classes"):
        sessions_of(19)

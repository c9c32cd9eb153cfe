"""Draws of shots from labels alone: the same images as from a split, and what stops a draw."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from aape.adapter.classification.draws import (
    check_shots,
    no_images,
    sample_rows,
    waffle_templates,
)
from aape.adapter.classification.feature_file import FileSource
from aape.adapter.shots import Shots
from aape.pipeline.datasets import Item, few_shot
from aape.pipeline.errors import UserError

LABELS = np.random.default_rng(0).permutation(np.repeat([2, 0, 1], [9, 4, 6]))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("shots", "repeat"), [(1, False), (4, False), (4, True), (8, True)])
def test_rows_are_the_images_that_coop_draws(shots: int, seed: int, repeat: bool) -> None:
    """``few_shot`` equals the published lists; a file of features must give the same images."""
    items = [Item(Path(f"{row}.jpg"), int(label)) for row, label in enumerate(LABELS)]
    rows = sample_rows(LABELS, shots, random.Random(seed), repeat)
    assert rows.dtype == np.int64
    assert [items[row] for row in rows] == few_shot(items, shots, seed, repeat=repeat)


def test_all_is_every_row_once_and_a_small_class_gives_what_it_has() -> None:
    read = "".join(["a", "ll"])  # equal to the word in the code, not the same object
    assert sample_rows(LABELS, read, random.Random(0)).tolist() == list(range(19))  # type: ignore[arg-type]
    rows = sample_rows(LABELS, 6, random.Random(0))
    assert np.bincount(LABELS[rows]).tolist() == [4, 6, 6]
    assert len(set(rows.tolist())) == 16


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 1, -1]])
def test_labels_out_of_range_are_said_with_the_range(labels: list[int]) -> None:
    low, high = min(labels), max(labels)
    with pytest.raises(UserError, match=f"run from {low} to {high}, but there are 2 classes: 0 to"):
        check_shots("toy", ["a", "b"], labels, 1)
    check_shots("toy", ["a", "b"], [0, 1], 1)


def test_too_few_images_stop_a_draw_unless_they_may_repeat() -> None:
    names, labels = ["a", "b"], [0, 0, 0, 1]
    with pytest.raises(UserError, match=r"1 of 2 classes .* fewer training images than 2 shots"):
        check_shots("toy", names, labels, 2)
    check_shots("toy", names, labels, 2, repeat=True)
    check_shots("toy", names, labels, "all")
    for shots in (2, "all"):  # of nothing there is nothing to repeat
        with pytest.raises(UserError, match="'b'"):
            check_shots("toy", names, labels[:3], shots, repeat=True)
    with pytest.raises(UserError, match="2 of 2 classes"):
        check_shots("toy", names, [], 1)


@pytest.mark.parametrize(("shots", "held"), [(1, 1), (4, 4), (6, 4), ("all", 9)])
def test_validation_has_as_many_shots_as_training_and_four_at_most(
    tmp_path: Path, shots: Shots, held: int
) -> None:
    x, text = np.eye(4, dtype=np.float32), np.eye(2, 4, dtype=np.float32)
    tensors = {"class_text.features": text, "test.features": text, "test.labels": np.arange(2)}
    for split in ("train", "val"):
        tensors |= {f"{split}.features": x[[0, 1] * 9], f"{split}.labels": np.array([0, 1] * 9)}
    path = tmp_path / "toy.safetensors"
    save_file(tensors, path, {"classnames": '["a", "b"]', "encoder": "made up"})
    data = FileSource(path).draw(shots, 1)
    assert np.bincount(data.val.y).tolist() == [held, held]


def test_an_empty_split_has_the_width_of_the_others() -> None:
    split = no_images(7)
    assert split.x.shape == (0, 7)
    assert (split.x.dtype, split.y.dtype, len(split.y)) == (np.float32, np.int64, 0)


def test_half_of_the_random_texts_have_words_and_half_letters() -> None:
    texts = waffle_templates("a photo of a {}.", ["Red fox", "an ox"], count=40)
    noise = [text.removeprefix("a photo of a {}, which has ").removesuffix(".") for text in texts]
    assert not any("which" in part or "." in part for part in noise)
    words = set(" ".join(noise[::2]).split())
    assert {"red", "fox"} <= words, "words of the names, of three letters at least"
    assert not words & {"an", "ox", "Red"}
    assert all(len(set(part.split())) == 2 for part in noise[::2])
    assert all(re.fullmatch("[a-z]{5} [a-z]{5}", part) for part in noise[1::2])
    assert len(waffle_templates("{}", ["fox"])) == 8

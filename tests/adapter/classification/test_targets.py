"""Data sets that are only tested on: no training images are needed, names that repeat are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from aape.adapter.classification.data import ClassTexts
from aape.adapter.classification.feature_file import FileSource
from aape.adapter.classification.protocols import load_protocol
from aape.pipeline.errors import UserError

NAMES = ["dog", "missile", "cat", "missile"]


def texts(names: list[str], keys: tuple[str, ...] = ()) -> ClassTexts:
    rows = np.eye(len(names), 8, dtype=np.float32)
    mask = np.ones((len(names), 1), bool)
    return ClassTexts(names, rows, rows, rows[:, None], mask, keys=keys)


def test_classes_are_found_by_key_and_without_by_their_turn_among_equal_names():
    source = texts(NAMES, ("n1", "n2", "n3", "n4"))
    assert texts(["missile", "cat"], ("n4", "n3")).positions_in(source) == [3, 2]
    assert texts(["missile", "missile"]).positions_in(source) == [1, 3]
    assert texts(["cat", "wolf"]).positions_in(source) == [2, None]
    # keys of another kind say nothing
    assert texts(["missile"], ("0",)).positions_in(source) == [1]


def feature_file(path: Path, *, train: bool) -> Path:
    generator = np.random.default_rng(0)

    def rows(n: int) -> np.ndarray:
        x = generator.normal(size=(n, 8)).astype(np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    tensors = {
        "class_text.features": rows(4),
        "test.features": rows(4),
        "test.labels": np.arange(4),
    }
    if train:
        tensors |= {"train.features": rows(8), "train.labels": np.repeat(np.arange(4), 2)}
    about = {"classnames": '["dog", "missile", "cat", "missile"]', "encoder": "x"}
    save_file(tensors, path, about)
    return path


def test_a_target_without_training_images_is_tested_on_and_equal_names_keep_their_classes(tmp_path):
    data = FileSource(feature_file(tmp_path / "source.safetensors", train=True)).draw(2, 1)
    target = FileSource(feature_file(tmp_path / "target.safetensors", train=False)).to_test()
    assert len(target.train) == 0
    for turned in (target, replace(target, dataset="again")):
        test = load_protocol("domain").test_sets(data, [turned])[1]
        assert test.classes.seen.tolist() == [0, 1, 2, 3]


def test_shots_that_a_file_lacks_are_answered_with_those_it_has(tmp_path):
    x, y = np.eye(4, dtype=np.float32), np.arange(4)
    tensors = {
        "train_1shot.features": x, "train_1shot.labels": y, "train_4shot.features": x,
        "train_4shot.labels": y, "test.features": x, "test.labels": y, "class_text.features": x,
    }  # fmt: skip
    path = tmp_path / "fixed.safetensors"
    save_file(tensors, path, {"classnames": '["a", "b", "c", "d"]', "encoder": "made up"})
    with pytest.raises(UserError) as caught:
        FileSource(path).draw(16, 0)
    assert caught.value.hint == "Choose shots 1 or 4."

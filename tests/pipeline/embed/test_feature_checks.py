"""Feature files of strangers: wrong shapes, numbers and words are one sentence each."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import save_file

from aape.adapter.classification.feature_file import FileSource
from aape.adapter.config import EvaluationConfig
from aape.pipeline.errors import UserError


def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    y = np.arange(4).repeat(3)
    texts = random.standard_normal((4, 8))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    return {
        "train.features": random.standard_normal((12, 8)).astype(np.float32),
        "train.labels": y,
        "test.features": random.standard_normal((12, 8)).astype(np.float32),
        "test.labels": y,
        "class_text.features": texts.astype(np.float32),
    }


def draw(tmp_path: Path, changed: dict | None = None, metadata: dict | None = None):
    path = tmp_path / "x.safetensors"
    content = {k: v for k, v in {**tensors(), **(changed or {})}.items() if v is not None}
    save_file(content, path, metadata=metadata or {"encoder": "e"})
    return FileSource(path).draw(2, 1)


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    ids = {"base_ids": "[0, 3]", "new_ids": "[1, 2]", "logit_scale": "50"}
    data = draw(tmp_path, metadata=ids)
    assert data.base_ids == [0, 3]
    assert data.new_ids == [1, 2]
    assert data.logit_scale == 50


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"base_ids": "[0, 0]"}, "different class ids"),
        ({"base_ids": "[-1, 1]"}, "different class ids"),
        ({"base_ids": "[0, 4]"}, "different class ids"),
        ({"new_ids": "[true, 2]"}, "different class ids"),
        ({"new_ids": "{"}, "not valid JSON"),
        ({"logit_scale": "-3"}, "above 0"),
        ({"logit_scale": "nan"}, "above 0"),
        ({"logit_scale": "much"}, "above 0"),
        ({"text_norm": "0"}, "above 0"),
        ({"classnames": "[1, 2, 3, 4]"}, "list of texts"),
        ({"classnames": '["a"]'}, "class names"),
    ],
)
def test_words_that_are_wrong(tmp_path: Path, metadata: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw(tmp_path, metadata=metadata)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train.labels": np.arange(12) / 2}, "whole numbers"),
        ({"train.labels": np.full(12, np.nan)}, "whole numbers"),
        ({"train.labels": np.arange(3)}, "3 labels for 12 images"),
        ({"train.labels": np.full(12, -1)}, "run from -1"),
        ({"test.features": np.ones((12, 8), np.int32)}, "floating"),
        ({"test.features": np.ones((12, 2, 4), np.float32)}, "shape"),
        ({"test.features": np.full((12, 8), np.inf, np.float32)}, "not finite"),
        ({"test.features": np.ones((12, 5), np.float32)}, "width"),
        ({"class_text.features": np.ones(8, np.float32)}, "shape"),
        ({"prompt_text.features": np.ones((4, 8), np.float32)}, "shape"),
        ({"class_text.features": None}, "no tensor"),
        ({"test.labels": None}, "no test.labels"),
    ],
)
def test_tensors_that_are_wrong(tmp_path: Path, changed: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw(tmp_path, changed)


@settings(max_examples=60)
@given(position=st.integers(0, 3000), bit=st.integers(0, 7))
def test_no_damage_is_a_traceback(tmp_path_factory, position: int, bit: int) -> None:
    path = tmp_path_factory.mktemp("damage") / "x.safetensors"
    save_file(tensors(), path, metadata={"classnames": '["a", "b", "c", "d"]'})
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        FileSource(path).draw(2, 1)


def test_a_seed_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="twice"):
        EvaluationConfig(seeds=[1, 1])

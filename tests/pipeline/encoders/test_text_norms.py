"""Lengths of text vectors before scaling: where they come from, and who carries them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from fakes import FakeEncoder, unit_rows
from safetensors.torch import save_file as save_weights
from toy_features import C, D, feature_file

from aape.adapter.classification.feature_file import FileSource
from aape.adapter.method.problem import TEXT_NORM
from aape.pipeline.encoders.base import KnowsTextNorms
from aape.pipeline.encoders.clip import ClipEncoder
from aape.pipeline.errors import UserError


def raw_lengths(path: Path) -> np.ndarray:
    """Lengths at which methods find the class texts of a feature file."""
    problem = FileSource(path).draw(2, 0).few_shot(list(range(C)))
    torch.testing.assert_close(problem.w.norm(dim=1), torch.ones(C))
    return problem.raw_w.norm(dim=1).numpy()


def test_a_file_tells_lengths_by_its_vectors_its_metadata_or_not_at_all(tmp_path):
    lengths = np.linspace(8, 12, C).astype(np.float32)
    texts = unit_rows(np.random.default_rng(1).normal(size=(C, D)))
    unscaled = {"class_text.features": lengths[:, None] * texts}
    found = raw_lengths(feature_file(tmp_path / "a.safetensors", **unscaled))
    np.testing.assert_allclose(found, lengths, rtol=1e-5)
    found = raw_lengths(feature_file(tmp_path / "b.safetensors", header={"text_norm": "7.5"}))
    np.testing.assert_allclose(found, 7.5, rtol=1e-5)
    np.testing.assert_allclose(raw_lengths(feature_file(tmp_path / "c")), TEXT_NORM, rtol=1e-5)


@pytest.mark.parametrize("given", ["long", "0", "-3", "nan", "inf"])
def test_a_length_that_is_none_is_refused(tmp_path, given):
    path = feature_file(tmp_path / "a.safetensors", header={"text_norm": given})
    with pytest.raises(UserError, match="as text_norm"):
        FileSource(path).draw(2, 0)


def test_lengths_decide_results_so_they_are_hashed(tmp_path):
    data = FileSource(feature_file(tmp_path / "a.safetensors")).draw(2, 0)
    other = replace(data, texts=replace(data.texts, norms=np.full(C, 5, np.float32)))
    assert data.hash != other.hash


def test_an_open_clip_encoder_knows_the_lengths(tmp_path):
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "Lengths-Tower.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    model = open_clip.create_model("Lengths-Tower").eval()
    save_weights(model.state_dict(), tmp_path / "weights.safetensors")
    encoder = ClipEncoder("Lengths-Tower", str(tmp_path / "weights.safetensors"), "cpu", "float32")
    texts = ["a photo of a cat.", "a photo of a ruddy turnstone."]
    with torch.no_grad():
        vectors = model.encode_text(open_clip.get_tokenizer("Lengths-Tower")(texts))
    expected = vectors.norm(dim=-1).numpy()
    assert isinstance(encoder, KnowsTextNorms)
    np.testing.assert_allclose(encoder.text_norms(texts), expected, rtol=1e-4)
    unit = (vectors / vectors.norm(dim=-1, keepdim=True)).numpy()
    np.testing.assert_allclose(encoder.encode_text(texts), unit, atol=1e-5)
    assert not isinstance(FakeEncoder(), KnowsTextNorms)

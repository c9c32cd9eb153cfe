"""CoOp and CoCoOp on a small open_clip text tower with random weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from aape.adapter.baselines import BASELINES, choose_baselines
from aape.adapter.method.problem import ClassSet, FewShot
from aape.pipeline.encoders.clip import ClipEncoder
from aape.pipeline.errors import UserError

NAMES = ("cat", "ruddy turnstone", "2012 Audi A5 Coupe")
SHOTS, D = 2, 32


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ClipEncoder:
    folder = tmp_path_factory.mktemp("models")
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config = {"embed_dim": D, "vision_cfg": vision, "text_cfg": text}
    (folder / "Random-Tower.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    path = folder / "weights.safetensors"
    save_file(open_clip.create_model("Random-Tower").state_dict(), path)
    return ClipEncoder("Random-Tower", str(path), "cpu", "float32")


def problem(encoder: ClipEncoder, names: tuple[str, ...] = NAMES, closed: bool = False) -> FewShot:
    w = torch.from_numpy(encoder.encode_text([f"a photo of a {name}." for name in names]))
    y = torch.arange(len(names)).repeat(SHOTS)
    noise = torch.randn(len(y), D, generator=torch.Generator().manual_seed(1))
    x = F.normalize(w[y].roll(1, 1) + 0.1 * noise, dim=-1)
    classes = ClassSet(w, w, w, None, torch.arange(len(names)), names)
    mask = torch.ones(len(names), 1, dtype=torch.bool)
    tower = None if closed else encoder.prompt_tower()
    return FewShot(x, y, None, classes, w[:, None], mask, x[:0], y[:0], 20.0, SHOTS, tower)


def test_the_words_themselves_as_context_give_the_text_features(encoder: ClipEncoder) -> None:
    tower = encoder.prompt_tower()
    assert tower is not None
    context = tower.start("a photo of a")
    assert context.shape == (4, 32)
    expected = encoder.encode_text([f"a photo of a {name}." for name in NAMES])
    np.testing.assert_allclose(tower(NAMES, context).numpy(), expected, atol=1e-5)
    several = tower(NAMES, torch.stack([context, context + 0.1, tower.start("x x x x")]))
    assert several.shape == (3, 3, D)
    np.testing.assert_allclose(several[0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(
        several[2].numpy(), encoder.encode_text([f"x x x x {name}." for name in NAMES]), atol=1e-5
    )
    alone = tower(NAMES[:1], context + 0.1)  # a shorter batch: nothing after the end is read
    torch.testing.assert_close(several[1, :1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp"])
def test_training_lowers_the_loss_and_new_names_are_read(
    name: str, encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = problem(encoder)
    with monkeypatch.context() as patch:
        patch.setattr("aape.adapter.baselines.prompt_learning._COCOOP_EPOCHS", 0)
        patch.setattr("aape.adapter.method.recipe.Recipe.epochs_for", lambda *_: 0)
        start = BASELINES[name].fit(data, 0)
    fitted = BASELINES[name].fit(data, 0)
    before, after = (
        F.cross_entropy(predictor.logits(data.x, data.classes), data.y)
        for predictor in (start, fitted)
    )
    assert after < before
    new = replace(problem(encoder, ("dog", "owl")).classes, seen=torch.tensor([-1, -1]))
    logits = fitted.logits(data.x, new)
    assert logits.shape == (len(data.x), 2)
    swapped = replace(new, names=("owl", "dog"))
    torch.testing.assert_close(fitted.logits(data.x, swapped), logits.flip(1), atol=1e-4, rtol=0)
    monkeypatch.setattr("aape.adapter.baselines.prompt_learning._PREDICT_TEXTS", 1)
    torch.testing.assert_close(fitted.logits(data.x, new), logits, atol=1e-4, rtol=0)


def test_closed_towers_are_said(encoder: ClipEncoder) -> None:
    for baseline in choose_baselines(["slow"]):
        with pytest.raises(UserError, match="the text tower is closed"):
            baseline.fit(problem(encoder, closed=True), 0)
    assert not {"CoOp", "CoCoOp"} & {baseline.name for baseline in choose_baselines(["all"])}

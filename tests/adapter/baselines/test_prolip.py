"""ProLIP against its formula in a naive loop, and the features that it needs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from fakes import unit
from PIL import Image
from safetensors.torch import save_file

from aape.adapter.baselines import GROUPS, choose_baselines
from aape.adapter.baselines import prolip as module
from aape.adapter.baselines.prolip import loss, prolip
from aape.adapter.classification.data import LabelledImages
from aape.adapter.method.problem import ClassSet, FewShot
from aape.pipeline.embed.images import image_features
from aape.pipeline.encoders import load_encoder
from aape.pipeline.errors import UserError

C, D, E, SHOTS = 3, 6, 10, 4


def problem(views: int = 0) -> FewShot:
    generator = torch.Generator().manual_seed(0)
    projection = torch.randn(E, D, generator=generator) / E**0.5
    y = torch.arange(C).repeat(SHOTS)
    z = torch.randn(len(y), E, generator=generator) + 2 * torch.eye(C, E)[y]
    w = unit(C, D, seed=1)
    none = torch.zeros(0, D)
    classes = ClassSet(w, w, w, None, torch.arange(C))
    data = FewShot(
        F.normalize(z @ projection, dim=-1), y, None, classes, w[:, None],
        torch.ones(C, 1, dtype=torch.bool), none, torch.zeros(0, dtype=torch.long), 100.0, SHOTS,
        before=z, projection=projection,
    )  # fmt: skip
    if views:
        more = torch.randn(len(y), views, E, generator=generator)
        data = replace(data, before_views=z[:, None] + 0.3 * more)
    return data


def naive(data: FewShot, steps: int) -> torch.Tensor:
    """Adam by hand, its gradient by differences of the loss as the paper writes it."""
    assert data.before is not None
    assert data.projection is not None
    start = data.projection.double()
    weight, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(steps):
        z = data.before if data.before_views is None else data.before_views[:, step % 2]
        z = z.double()

        def value(at: torch.Tensor, z: torch.Tensor = z) -> float:
            total = 0.0
            for row, label in zip(z, data.y.tolist()):
                x = row @ at
                scores = 100.0 * data.w.double() @ (x / x.norm())
                total += float(torch.logsumexp(scores, 0) - scores[label])
            return total / len(z) + float(((at - start) ** 2).sum()) / SHOTS

        gradient = torch.zeros_like(weight)
        for i in range(E):
            for j in range(D):
                step_of = torch.zeros_like(weight)
                step_of[i, j] = 1e-6
                gradient[i, j] = (value(weight + step_of) - value(weight - step_of)) / 2e-6
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        rate = 1e-5 * 0.5 * (1 + math.cos(math.pi * step / steps))
        first, second = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        weight = weight - rate * first / (second.sqrt() + 1e-4)
    return weight


@pytest.mark.parametrize("views", [0, 2])
def test_the_trained_projection_is_that_of_a_naive_loop(views, monkeypatch):
    monkeypatch.setattr(module, "_STEPS", 3)
    data = problem(views)
    assert data.projection is not None
    found, expected = prolip(data, 1), naive(data, 3)
    z = torch.eye(E)  # its rows are those of W
    logits = 100.0 * F.normalize(expected.float(), dim=-1) @ data.w.T
    torch.testing.assert_close(found.logits(z, data.classes), logits, atol=2e-4, rtol=1e-4)
    moved = (expected - data.projection).abs().max()
    assert 1e-5 < moved < 4e-5  # three steps of Adam at 1e-5
    assert found.reads == "before"
    assert found.parameters == E * D


def test_it_starts_at_zero_shot_clip_and_fits_its_photos_better():
    data = problem()
    assert data.before is not None
    assert data.projection is not None
    at = (data.before, data.y, data.w, 100.0, 1 / SHOTS)
    start = loss(data.projection, data.projection, *at)
    assert start == F.cross_entropy(100.0 * data.x @ data.w.T, data.y)
    after = F.cross_entropy(prolip(data, 1).logits(data.before, data.classes), data.y)
    assert after < start


def test_without_the_features_before_the_projection_it_says_so_and_all_leaves_it_out():
    with pytest.raises(UserError, match="before CLIP's last projection"):
        prolip(replace(problem(), before=None), 1)
    assert "ProLIP" not in GROUPS["all"]
    assert choose_baselines(["prolip"])[0].name == "ProLIP"


def test_rows_of_chosen_classes_keep_their_features_before_the_projection():
    z = np.arange(8, dtype=np.float32).reshape(4, 2)
    images = LabelledImages(z, np.array([0, 1, 2, 1]), before=z, before_views=z[:, None])
    kept = images.of([1])
    assert kept.before is not None
    assert kept.before.tolist() == z[[1, 3]].tolist()
    assert kept.before_views is not None
    assert kept.before_views.shape == (2, 1, 2)


def test_the_tower_before_its_projection_gives_the_feature_after_it(tmp_path, monkeypatch):
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    name = "ViT-S-32-alt"
    weights = tmp_path / "weights.safetensors"
    state = open_clip.create_model(name).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, weights)
    encoder = load_encoder(name, str(weights), "cpu", "float32")
    paths: list[str | Path] = [tmp_path / f"{i}.png" for i in range(2)]
    for i, path in enumerate(paths):
        Image.new("RGB", (40, 30), (90 * i, 20, 200)).save(path)
    before = encoder.before_projection()  # type: ignore[attr-defined]
    z = image_features(before, paths, views=1, workers=0)
    x = image_features(encoder, paths, workers=0)
    assert z.x.shape == (2, before.dim)
    assert z.views is not None
    projected = F.normalize(torch.from_numpy(z.x @ before.projection), dim=-1).numpy()
    np.testing.assert_allclose(projected, x.x, atol=1e-5)
    np.testing.assert_allclose(before.features(z.x), x.x, atol=1e-6)
    assert before.features(z.views).shape == (2, 1, encoder.dim)
    # the encoder is as it was, and the second look is read from the cache
    assert encoder.encode_images(torch.zeros(1, 3, 224, 224)).shape == (1, encoder.dim)
    assert image_features(before, paths, views=1, workers=0).computed == 0
    assert json.dumps(before.fingerprint) != json.dumps(encoder.fingerprint)

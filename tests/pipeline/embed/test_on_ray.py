"""Encoding on two Ray nodes, one of which is killed in the middle: the cache of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from processes import home_with_models, stored_keys
from ray_nodes import two_nodes

from aape.pipeline.config import EncoderConfig
from aape.pipeline.embed import on_ray
from aape.pipeline.embed.images import image_features
from aape.pipeline.embed.spread import actors_of, open_encoder
from aape.pipeline.embed.texts import encode_texts
from aape.pipeline.encoders import load_encoder
from aape.pipeline.errors import UserError

pytest.importorskip("ray")
TEXTS = [
    f"a photo of {number} birds" for number in range(44)
]  # whole batches: one text alone depends on threads
OPTIONS: Any = {"views": 1, "tokens": True, "batch_size": 4, "strict": False}


def write_photos(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:02}.png" for number in range(count)]
    for path in paths:
        values = rng.integers(0, 255, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(values).resize((200, 240)).save(path)
    paths[7].write_bytes(b"no picture")
    return paths


@pytest.mark.slow
def test_a_killed_node_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAPE_HOME", str(home_with_models(tmp_path / "home")))
    monkeypatch.setattr(on_ray, "_BATCHES_OF_A_PART", 2)
    paths = write_photos(tmp_path / "photos", 90)
    place = EncoderConfig.model_validate(
        {"name": "lite", "device": "cpu", "ray": {"actors": 2, "cpus": 1.5}}
    )
    answers, killed_at = [0], [0]
    true_answers = on_ray.RayActors._answers

    with two_nodes(monkeypatch) as nodes:

        def killing(self: on_ray.RayActors, parts: Any) -> Iterator[Any]:
            for answer in true_answers(self, parts):
                answers[0] += 1
                yield answer
                if len(self.nodes) == 2 and not killed_at[0]:
                    killed_at[0] = answers[0]
                    nodes.kill_second()

        monkeypatch.setattr(on_ray.RayActors, "_answers", killing)
        encoder = open_encoder(place)
        assert actors_of(encoder) is not None
        monkeypatch.setattr(encoder, "encode_images", None)  # nothing is encoded here
        monkeypatch.setattr(encoder, "encode_images_and_tokens", None)
        found = image_features(encoder, paths, **OPTIONS)
        assert 0 < killed_at[0] < answers[0] - 4, (killed_at, answers)
        monkeypatch.setattr(encoder, "encode_text", None)
        rows = encode_texts(encoder, TEXTS, batch_size=4)
        again = image_features(encoder, paths, **OPTIONS)
        assert again.computed == 0
    ours = stored_keys(tmp_path / "home")
    alone = load_encoder("lite", device="cpu")
    (tmp_path / "home").rename(tmp_path / "of-two")
    one = image_features(alone, paths, workers=1, **OPTIONS)
    assert found.unreadable == one.unreadable
    assert [entry.path for entry in one.unreadable] == [paths[7]]
    for name in ("x", "views", "tokens", "kept"):
        assert getattr(found, name).tobytes() == getattr(one, name).tobytes(), name
    assert rows.tobytes() == encode_texts(alone, TEXTS, batch_size=4).tobytes()
    assert ours == stored_keys(tmp_path / "home")


def test_no_cluster_is_said_before_anything_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere.invalid:1")
    place = EncoderConfig.model_validate({"name": "lite", "ray": {"actors": 1}})
    with pytest.raises(UserError, match="No Ray cluster at nowhere"):
        open_encoder(place)

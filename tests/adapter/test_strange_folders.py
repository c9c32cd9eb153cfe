"""Adapter folders of strangers: names, ids and tensors that do not agree are one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import PixelEncoder
from PIL import Image
from small_runs import NAMES, random_photo, small_run

from aape.adapter.classifier import Classifier
from aape.adapter.export import export
from aape.adapter.export.open_classes import open_folded
from aape.adapter.extend import extend
from aape.adapter.open_model import open_model
from aape.adapter.predict import predict
from aape.adapter.run import RunFolder
from aape.pipeline.errors import UserError
from aape.pipeline.store import CHECKSUM, read_tensors, write_tensors


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, PixelEncoder]:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    encoder = PixelEncoder()
    return small_run(tmp_path / "run", encoder).path, encoder


def edit(run: Path, **changes: Any) -> None:
    path = run / "adapter_config.json"
    about = json.loads(path.read_text()) | changes
    about.pop(CHECKSUM, None)  # who edits a file takes it out
    path.write_text(json.dumps(about))


def ways(run: Path, encoder: PixelEncoder, out: Path) -> dict[str, Any]:
    photo = random_photo(out / "photo.png")
    return {
        "predict": lambda: predict(run, [photo], encoder=encoder),
        "open model": lambda: open_model(run, encoder=encoder).predict([photo]),
        "fold": lambda: open_folded(run, photo=False, encoder=encoder),
        "folder": lambda: export(run, out / "exported", format="folder"),
        "extend": lambda: extend(run, "no.bank.parquet", out=out / "extended"),
        "classifier": lambda: Classifier.load(run, device="cpu"),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"class_ids": [2, 1, 0]}, {"class_ids": "abc"}, {"class_ids": [0, 1]},
        {"class_ids": [0, 1, 9]}, {"class_ids": [0, 1, -2]}, {"class_ids": [0, 1, 1]},
        {"class_ids": {}}, {"class_names": None}, {"class_names": NAMES},
        {"class_names": "abc"}, {"class_names": ["x", "y", "z"]}, {"all_class_names": "abcd"},
        {"all_class_names": None}, {"all_class_names": [1, 2, 3, 4]}, {"all_class_names": []},
        {"template": 5}, {"template": "a photo"}, {"ensemble": 3},
        {"class_text": {"base": "ensemble"}, "ensemble": []}, {"class_text": 3},
        {"class_text": {"share": float("nan")}}, {"table": {}}, {"table": {"zero-shot": 1}},
        {"table": {"zero-shot": [10**400, 1]}}, {"table": {"zero-shot": [1e300, 1.0]}},
        {"table": None}, {"scale": 1e308}, {"scale": 10**400}, {"scale": None}, {"scale": "x"},
        {"dim": 5}, {"classes": 9}, {"encoder": 4}, {"dataset": None}, {"recipe": "x"},
    ],
    ids=lambda changes: str(changes)[:50],
)  # fmt: skip
def test_what_does_not_agree_is_one_sentence_everywhere(
    run: tuple[Path, PixelEncoder], tmp_path: Path, changes: dict[str, Any]
) -> None:
    edit(run[0], **changes)
    for name, way in ways(*run, tmp_path).items():
        with pytest.raises(UserError, match=r"adapter_config\.json|trained class"):
            way()
            pytest.fail(name)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("text", lambda t: t[:2]), ("text", lambda t: t[0]), ("own.weight", lambda t: t[:, :2]),
        ("own.bias", lambda t: t[:1]), ("shared.matrix", lambda t: t[:-1]),
        ("shared.shift", lambda t: t * float("nan")), ("own.bias", lambda t: t.double() + 1e300),
        ("class_texts", lambda t: torch.ones(3, 4)), ("class_texts", lambda t: torch.ones(4, 3)),
        ("delta", lambda t: torch.ones(1, 1)), ("head.x", lambda t: torch.ones(1)),
    ],
)  # fmt: skip
def test_tensors_of_other_sizes_are_one_sentence(
    run: tuple[Path, PixelEncoder], tmp_path: Path, name: str, change: Any
) -> None:
    path = run[0] / "adapter.safetensors"
    tensors, notes = read_tensors(path)
    changed = change(tensors.get(name)).contiguous()
    write_tensors(path, {**tensors, name: changed}, notes)
    for verb, way in ways(*run, tmp_path).items():
        if name == "class_texts" and verb == "classifier" and changed.shape[0] == 4:
            continue  # it reads no other texts
        with pytest.raises(UserError, match=r"adapter_config\.json and adapter\.safetensors"):
            way()
            pytest.fail(verb)


def test_ids_say_which_of_two_classes_of_one_name_was_trained(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    encoder = PixelEncoder()
    run = small_run(tmp_path / "run", encoder, trained=2).path
    names = ["crane", "owl", "crane", "kite"]
    edit(run, all_class_names=names, class_names=["crane", "owl"], class_ids=[2, 1])
    model = open_model(run, encoder=encoder)
    assert [entry.seen for entry in model.classes().asked] == [-1, 1, 0, -1]
    _, facts = open_folded(run, photo=False, encoder=encoder)
    assert facts["trained"] == [False, True, True, False]
    photo = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    told = [predict(way, [photo], top=4, encoder=encoder)[0] for way in (run, model)]
    assert told[0].class_ids == told[1].class_ids
    assert set(told[0].labels) == {"crane (class 0)", "owl", "crane (class 2)", "kite"}


def test_a_folder_of_an_older_version_is_read_as_before(run: tuple[Path, PixelEncoder]) -> None:
    edit(run[0], class_text=None, later_key={"x": 1}, shots="all")
    tensors, about = RunFolder.open(run[0]).load_classifier()
    assert "class_ids" not in about
    assert len(tensors["text"]) == 3
    assert open_model(run[0], encoder=run[1]).predict([np.zeros((8, 8, 3), np.uint8)])[0].labels

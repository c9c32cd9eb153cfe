"""Photos sorted by label, named classes with descriptions, and what a run left untrained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_engine import FakeEngine
from fakes import FakeEncoder

from aape.adapter.asked_classes import asked_classes, say_untrained
from aape.adapter.described_names import describe_names, with_descriptions
from aape.adapter.predict import Prediction
from aape.adapter.sort_photos import sort_into
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.engines.base import Answer
from aape.pipeline.prompts.requests import Request

ABOUT = {
    "all_class_names": ["T-shirt", "bow tie", "hat"],
    "class_names": ["T-shirt"],
    "class_ids": [0],
    "protocol": "base2new/1",
    "class_text": {"base": "template", "share": 0.5},
}


def test_photos_are_copied_and_nothing_is_overwritten(tmp_path: Path) -> None:
    rows = []
    for folder, text in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(text)
        rows.append(Prediction(tmp_path / folder / "1.jpg", ["../hat"], [0.9]))
    rows.append(Prediction(tmp_path / "a" / "2.jpg", [], [], error="torn"))
    out = tmp_path / "sorted"
    for _ in range(2):  # a second time changes nothing
        assert sort_into(out, rows) == {"_hat": 3}
        found = {path.name: path.read_bytes() for path in (out / "_hat").iterdir()}
        assert found == {"1.jpg": b"one", "1 (2).jpg": b"two"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "sorted"]
    with pytest.raises(UserError, match="not a folder"):
        sort_into(tmp_path / "a" / "1.jpg", rows)


def test_names_are_compared_without_case_and_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked_classes(ABOUT, [" t-SHIRT"], ["Bow_Tie", "scarf"])
    assert [(entry.name, entry.class_id) for entry in found] == [
        ("T-shirt", 0), ("bow tie", 1), ("scarf", None),
    ]  # fmt: skip
    assert "'Bow_Tie' is taken for the class 'bow tie'" in capsys.readouterr().err


def test_a_run_says_which_classes_it_left_untrained() -> None:
    said = say_untrained(ABOUT, asked_classes(ABOUT))
    assert said.startswith("2 of 3 classes were not trained in this run (base2new")
    assert "bow tie, hat" in said
    assert not say_untrained(ABOUT, asked_classes(ABOUT, ["T-shirt"], ["scarf"]))


def test_named_classes_get_their_share_of_descriptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path))
    encoder, asked = FakeEncoder(), asked_classes(ABOUT, ["hat"], ["scarf"])
    text = torch.from_numpy(encoder.encode_text(["a photo of a hat.", "a photo of a scarf."]))
    out = with_descriptions(text, asked, encoder, ABOUT, FakeEngine())
    assert torch.equal(out[0], text[0])
    assert not torch.allclose(out[1], text[1], atol=0.1)
    assert float(out[1].norm()) == pytest.approx(1, abs=1e-5)
    none = {**ABOUT, "class_text": {"share": 0.0}}
    assert torch.equal(with_descriptions(text, asked, encoder, none, FakeEngine()), text)


class SilentAbout(FakeEngine):
    """Has nothing worth keeping to say of one class."""

    def _answer(self, request: Request) -> Answer:
        text = "" if request.class_name == "scarf" else super()._answer(request).text
        return replace(super()._answer(request), text=text)


def test_a_name_that_cannot_be_described_is_judged_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path))
    mean, some = describe_names(["scarf", "hat"], FakeEncoder(), SilentAbout())
    assert some == [False, True]
    assert np.linalg.norm(mean, axis=1) == pytest.approx([0, 1], abs=1e-5)
    assert "No description of 'scarf' was worth keeping" in capsys.readouterr().err

"""The hash of a file of weights is remembered, and a damaged memory is not believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aape.pipeline.encoders.base import hash_weights_file
from aape.pipeline.files import hash_file


@pytest.mark.parametrize("damage", ["digit", "no json", "another file", "a list"])
def test_a_damaged_note_is_made_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    weights = tmp_path / "w.bin"
    weights.write_bytes(b"weights")
    digest = hash_weights_file(weights)
    assert digest == hash_file(weights)
    (note,) = (tmp_path / "home").rglob("*.json")
    known = json.loads(note.read_text())
    assert known["weights"] == digest
    changed = {
        "digit": json.dumps({**known, "weights": "0" + digest[1:]}),
        "no json": "{",
        "another file": json.dumps({"weights": "0" * 64}),
        "a list": "[]",
    }
    note.write_text(changed[damage])
    assert hash_weights_file(weights) == digest
    assert json.loads(note.read_text()) == known

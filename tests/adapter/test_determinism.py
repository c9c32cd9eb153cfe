"""Same seed, same machine: the same bytes from the bank to the report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from fakes import PixelEncoder
from PIL import Image

from aape.adapter.classification.verbs import train
from aape.pipeline.datasets.add import add_dataset
from aape.pipeline.prompts.verbs import import_prompts

COLOURS = {"red mug": (200, 30, 30), "green plate": (30, 200, 30), "blue bowl": (30, 30, 200)}
# what says when, how long, and checksums of that
_WHEN = re.compile(
    rb'"(total_)?seconds": [\d.e-]+|"sha256": "\w+"|\d+(\.\d+)? s\b|\d+ min \d\d s'
    rb"|\d{4}-\d\d-\d\dT[\d:.+]+"
)


def make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Bank, training and report in an empty folder; returns all files that were made."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AAPE_HOME", str(folder / "home"))
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        place = folder / "photos" / name
        place.mkdir(parents=True)
        for number in range(8):
            pixels = np.array(colour) + random.integers(-60, 60, (8, 8, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number}.png")
    add_dataset("photos", "mine")
    texts = {
        name: [f"A {name} with {n} handles, seen at home." for n in range(4)] for name in COLOURS
    }
    Path("texts.json").write_text(json.dumps(texts))
    import_prompts("texts.json", "mine", "mine.bank.parquet")
    train(
        bank="mine.bank.parquet", root="photos", protocol="fewshot", shots=2, seeds=[1, 2],
        baselines=["gda"], out="run", settings={"evaluation.resamples": 50},
    )  # fmt: skip
    kept = ("mine.bank.parquet", "mine.bank.faiss", "run/")
    made = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and str(path.relative_to(folder)).startswith(kept)
    }
    return {name: _lasting(name, data) for name, data in made.items() if ".lock" not in name}


def _lasting(name: str, data: bytes) -> bytes:
    """Bank, index and adapter as they are; of all else not when and how long."""
    if name.startswith("run/work/"):  # the header of finished work has seconds
        return data[8 + int.from_bytes(data[:8], "little") :]
    return data if name.endswith((".parquet", ".faiss", ".safetensors")) else _WHEN.sub(b"", data)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = PixelEncoder()
    monkeypatch.setattr("aape.pipeline.encoders.load_encoder", lambda *a, **o: encoder)
    monkeypatch.setattr(
        "aape.pipeline.prompts.engines.base.now", lambda: "2026-01-01T00:00:00+00:00"
    )
    first = make(tmp_path / "here", monkeypatch)
    (tmp_path / "here").rename(tmp_path / "before")
    second = make(tmp_path / "here", monkeypatch)
    assert first.keys() == second.keys()
    assert {"run/adapter.safetensors", "run/report.html", "run/results.json"} <= first.keys()
    differing = [name for name in first if first[name] != second[name]]
    assert differing == []

"""`aape datasets …` as processes: what is printed, the exit status, JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AAPE_DATA", raising=False)


def test_list_and_show(aape) -> None:
    listed = json.loads(aape("datasets", "list", "--json").stdout)
    assert {"cars", "shapes", "imagenet", "coco"} <= {row["name"] for row in listed}
    assert all(row["licence"] for row in listed)
    text = aape("datasets", "show", "stanford_cars").stdout
    assert text.startswith("cars: Stanford Cars\n")
    assert "licence: research use" in text
    shown = json.loads(aape("datasets", "show", "cars", "--json").stdout)
    assert len(shown["classes"]) == 196


def test_unknown_data_set_is_one_sentence_and_status_2(aape) -> None:
    result = aape("datasets", "show", "stanford_car")
    assert result.returncode == 2
    assert "Unknown data set 'stanford_car'" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_says_what_is_missing_with_status_1(aape, tmp_path: Path, test_data: Path) -> None:
    result = aape("datasets", "check", "dtd", "--root", tmp_path)
    assert result.returncode == 1
    assert result.stdout.startswith(f"missing: {tmp_path}/split_zhou_DescribableTextures.json")
    good = aape("datasets", "check", "coco", "--root", test_data / "coco_mini", "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["counts"]["test"] == {"captioned images": 79, "captions": 395}


def test_add_then_check_finds_a_damaged_image(aape, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for i in range(3):
            path = tmp_path / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(path)
    path.write_bytes(b"no image")
    added = aape("datasets", "add", tmp_path / "photos", "--name", "pair", "--json")
    assert json.loads(added.stdout)["classes"] == ["cat", "dog"], added.stderr
    quick = aape("datasets", "check", "pair")
    assert (quick.returncode, "1 photo unreadable" in quick.stdout) == (1, True)
    decoded = aape("datasets", "check", "pair", "--decode")
    assert decoded.returncode == 1
    assert decoded.stdout.startswith(f"unreadable: {path}: ")


def test_fetch_of_what_needs_an_account_says_so(aape, tmp_path: Path) -> None:
    result = aape("datasets", "fetch", "imagenet", "--root", tmp_path)
    assert result.returncode == 2
    assert "Register at https://image-net.org/" in result.stderr


def test_a_cache_folder_that_cannot_be_made_is_one_sentence(aape, tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "file" / "home"))
    result = aape("datasets", "list")
    assert result.returncode == 2
    assert "Set AAPE_HOME" in result.stderr
    assert "Traceback" not in result.stderr

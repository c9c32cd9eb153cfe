"""`check`: missing files first, counts against the published ones, damaged images named."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from aape.pipeline.datasets import load_manifest
from aape.pipeline.datasets.check import absent_files, check_dataset
from aape.pipeline.errors import UserError
from aape.pipeline.files import read_json, write_json


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AAPE_DATA", raising=False)


@pytest.fixture
def pets(test_data: Path, tmp_path: Path) -> Path:
    """CoOp's pets with its real split file and empty stand-ins for the images of one split."""
    root = tmp_path / "oxford_pets"
    split = read_json(test_data / "coop_splits" / "split_zhou_OxfordPets.json")
    write_json(root / "split_zhou_OxfordPets.json", split)
    (root / "images").mkdir()
    for path, _, _ in split["test"]:
        (root / "images" / path).touch()
    return root


def test_missing_files_come_first_and_are_summed_up(pets: Path) -> None:
    check = check_dataset(load_manifest("pets"), pets)
    assert not check.complete
    assert len(check.missing) == 2944 + 736
    assert check.differences == []
    lines = check.lines()
    assert lines[0].startswith(f"missing: {pets / 'images'}/")
    assert lines[20].startswith("missing: 3,660 more, mostly in")
    assert any("get it: aape datasets fetch pets" in line for line in lines)
    assert lines[-1].endswith("layout 'CoOp', incomplete")
    assert len(check.as_dict()["missing"]) == 3680, "JSON has them all"


def test_counts_that_differ_from_the_published_ones_are_said(pets: Path) -> None:
    split = read_json(pets / "split_zhou_OxfordPets.json")
    write_json(pets / "split_zhou_OxfordPets.json", split | {"test": split["test"][:100]})
    differences = check_dataset(load_manifest("pets"), pets).differences
    assert differences == [
        "test has 100 images, published are 3,669 (split_zhou_OxfordPets.json of CoOp)"
    ]


def test_nothing_there_lists_what_each_layout_needs(tmp_path: Path) -> None:
    check = check_dataset(load_manifest("flowers"), tmp_path)
    assert check.layout == ""
    assert f"{tmp_path / 'split_zhou_OxfordFlowers.json'} (layout 'CoOp')" in check.missing
    assert f"{tmp_path / 'setid.mat'} (layout 'torchvision')" in check.missing
    with pytest.raises(UserError, match="is not a folder"):
        check_dataset(load_manifest("flowers"), tmp_path / "absent")


def test_damaged_images_are_named_with_the_reason(tmp_path: Path) -> None:
    for i in range(4):
        path = tmp_path / "2750" / "Forest" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, i, i)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2750" / "Forest" / "text.jpg").write_text("no image")
    manifest = load_manifest("eurosat")
    assert check_dataset(manifest, tmp_path).unreadable == []
    check = check_dataset(manifest, tmp_path, decode=True)
    assert [Path(line.split(":")[0]).name for line in check.unreadable] in (
        ["3.png", "text.jpg"],
        ["text.jpg", "3.png"],
    )
    assert not check.complete
    assert any("9 of 10 classes have no image" in remark for remark in check.remarks)


def test_absent_files_equals_asking_for_each(tmp_path: Path) -> None:
    paths = [tmp_path / folder / f"{i}.jpg" for folder in ("a", "b", "c") for i in range(5)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("a file where a folder should be")
    for path in paths[:3]:
        path.touch()
    assert absent_files(paths) == [path for path in paths if not path.exists()]


def test_clothing_of_the_test_data_is_complete(test_data: Path) -> None:
    check = check_dataset(load_manifest("clothing"), test_data / "photos" / "clothing")
    assert check.complete
    assert sum(counts["labelled images"] for counts in check.counts.values()) == 1133
    assert len(check.differences) == 3, "it is a part of the published data set"

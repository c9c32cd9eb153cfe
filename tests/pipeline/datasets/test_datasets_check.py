"""`check`: missing files first, counts against the published ones, damaged images named."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from aape.pipeline.datasets import load_manifest
from aape.pipeline.datasets.check import Check, absent_files, check_dataset
from aape.pipeline.errors import UserError
from aape.pipeline.files import read_json, write_json
from aape.pipeline.pictures import PictureError, glance_at, read_picture
from aape.pipeline.raster import readable_suffixes


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AAPE_DATA", raising=False)


@pytest.fixture
def pets(test_data: Path, tmp_path: Path) -> Path:
    """CoOp's pets with its real split file and one picture for all images of one split."""
    root = tmp_path / "oxford_pets"
    split = read_json(test_data / "coop_splits" / "split_zhou_OxfordPets.json")
    write_json(root / "split_zhou_OxfordPets.json", split)
    (root / "images").mkdir()
    picture = tmp_path / "picture.jpg"
    Image.new("RGB", (8, 8)).save(picture)
    for path, _, _ in split["test"]:
        (root / "images" / path).hardlink_to(picture)
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
    assert lines[-1].endswith("layout 'CoOp', incomplete (3,680 photos missing)")
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


SUFFIXES = ("jpg", "png", "webp", "gif", "tiff", "bmp", "jp2", "avif")


@pytest.fixture
def forest(tmp_path: Path) -> Path:
    """EuroSAT with one class, a picture in each format."""
    folder = tmp_path / "2750" / "Forest"
    folder.mkdir(parents=True)
    for suffix in SUFFIXES:
        if f".{suffix}" in readable_suffixes():
            Image.effect_noise((64, 48), 90).convert("RGB").save(folder / f"{suffix}.{suffix}")
    return folder


def bad_names(check: Check) -> list[str]:
    return sorted(Path(line.split(":")[0]).name for line in check.unreadable)


def test_a_photo_that_cannot_be_read_makes_a_data_set_incomplete(forest: Path) -> None:
    manifest, root = load_manifest("eurosat"), forest.parents[1]
    whole = check_dataset(manifest, root)
    assert (whole.complete, whole.looked_at) == (True, "headers")
    assert whole.lines()[-1].endswith(
        "complete by the headers and ends of its photos; --decode reads them whole"
    )
    (forest / "empty.jpg").touch()
    (forest / "text.jpg").write_text("no image")
    check = check_dataset(manifest, root)
    assert bad_names(check) == ["empty.jpg", "text.jpg"]
    assert not check.complete
    assert check.lines()[-1].endswith("incomplete (2 photos unreadable)")
    assert f"unreadable: {forest / 'empty.jpg'}: the file is empty" in check.lines()[:2]
    assert sum(some["labelled images"] for some in check.counts.values()) == len(
        [path for path in forest.iterdir() if path.name not in ("empty.jpg", "text.jpg")]
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.5, 0.95])
@pytest.mark.parametrize("zeros", [False, True], ids=["cut", "zeros"])
def test_a_photo_that_is_cut_short_is_found_without_decoding_all(
    forest: Path, suffix: str, kept: float, zeros: bool
) -> None:
    """A file that ends early, and one whose rest is zeros since a download reserved its space."""
    path = forest / f"{suffix}.{suffix}"
    if not path.exists():
        pytest.skip(f"this Pillow writes no {suffix}")
    data = path.read_bytes()
    rest = bytes(len(data) - int(len(data) * kept)) if zeros else b""
    path.write_bytes(data[: int(len(data) * kept)] + rest)
    quick = check_dataset(load_manifest("eurosat"), forest.parents[1])
    whole = check_dataset(load_manifest("eurosat"), forest.parents[1], decode=True)
    assert bad_names(quick) == bad_names(whole)
    assert whole.looked_at == "pixels"


def test_a_glance_refuses_no_photo_that_decodes(tmp_path: Path) -> None:
    """Padding after the last marker, as cameras write, and an end marker that is not there."""
    Image.effect_noise((64, 48), 90).save(tmp_path / "plain.jpg")
    data = (tmp_path / "plain.jpg").read_bytes()
    for name, content in {
        "zeros.jpg": data + bytes(5000),
        "trailer.jpg": data + b"SEFH" + bytes(range(200)),
        "no-end.jpg": data[:-2],
    }.items():
        (tmp_path / name).write_bytes(content)
        try:
            read_picture(tmp_path / name, quick=True)
        except PictureError:
            with pytest.raises(PictureError):
                glance_at(tmp_path / name)
        else:
            assert glance_at(tmp_path / name) == ""


def test_damage_inside_is_found_by_decoding(forest: Path) -> None:
    data = bytearray((forest / "png.png").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    (forest / "png.png").write_bytes(data)
    manifest, root = load_manifest("eurosat"), forest.parents[1]
    assert check_dataset(manifest, root).unreadable == []
    check = check_dataset(manifest, root, decode=True)
    assert bad_names(check) == ["png.png"]
    assert any("9 of 10 classes have no image" in remark for remark in check.remarks)


def test_of_very_many_photos_none_is_opened(forest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aape.pipeline.datasets.check._OPENED", 3)
    (forest / "empty.jpg").touch()
    manifest, root = load_manifest("eurosat"), forest.parents[1]
    check = check_dataset(manifest, root)
    assert check.looked_at == "names"
    assert check.lines()[-1].endswith(
        "by the names of its files: with so many, --decode opens them"
    )
    assert bad_names(check_dataset(manifest, root, decode=True)) == ["empty.jpg"]


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

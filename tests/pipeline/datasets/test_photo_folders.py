"""Folders as people have them: links, thumbnails, formats, copies, photos that are damaged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aape.pipeline.datasets import open_dataset
from aape.pipeline.datasets.add import add_dataset
from aape.pipeline.datasets.check import check_dataset
from aape.pipeline.datasets.copies import same_content
from aape.pipeline.datasets.images import has_image, list_images, look_through, subfolders
from aape.pipeline.datasets.splits import own_split
from aape.pipeline.errors import UserError


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AAPE_DATA", raising=False)


def photos(folder: Path, count: int, first: int = 0) -> list[Path]:
    """Write photos of which no two are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{n}.jpg" for n in range(first, first + count)]
    for path in paths:
        seed = list(os.fsencode(path))
        pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def two_classes(root: Path, count: int = 6) -> Path:
    for name in ("mug", "plate"):
        photos(root / name, count)
    return root


def link(at: Path, to: str) -> None:
    try:
        at.symlink_to(to, target_is_directory=True)
    except OSError:
        pytest.skip("no links here")


@pytest.mark.parametrize("to", [".", "..", "../.."])
def test_a_link_to_a_folder_above_is_not_followed(to: str, tmp_path: Path) -> None:
    root = two_classes(tmp_path / "a" / "photos")
    link(root / "mug" / "self", to)
    assert list_images(root / "mug") == [root / "mug" / f"{n}.jpg" for n in range(6)]
    assert add_dataset(root, "mine").counts == {
        "train": {"labelled images": 6},
        "val": {"labelled images": 2},
        "test": {"labelled images": 4},
    }


def test_each_real_folder_once(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "photos")
    outside = photos(tmp_path / "outside", 2)
    link(root / "mug" / "a", "../../outside")
    link(root / "mug" / "b", "../../outside")
    link(root / "mugs", "mug")  # the same class again
    link(root / "all", ".")
    found = list_images(root / "mug")
    assert len(found) == 6 + len(outside)
    assert found[-1] == root / "mug" / "a" / "1.jpg"
    assert len(list_images(root)) == 12 + len(outside)
    assert subfolders(root) == ["mug", "plate"]
    link(root / "mug" / "other", "../plate")
    assert len(look_through(root / "mug", within=root).images) == 8, "plate is met by itself"


def test_a_class_may_be_a_link(tmp_path: Path) -> None:
    photos(tmp_path / "outside", 3)
    (tmp_path / "photos").mkdir()
    link(tmp_path / "photos" / "mug", "../outside")
    assert subfolders(tmp_path / "photos") == ["mug"]
    assert has_image(tmp_path / "photos" / "mug")
    assert len(list_images(tmp_path / "photos")) == 3


SYSTEM = ("@eaDir", ".ipynb_checkpoints", "__MACOSX", ".thumbnails", "#recycle", "$RECYCLE.BIN")


def test_system_folders_and_files_are_left_out(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "photos")
    for name in SYSTEM:
        photos(root / name, 2)
        photos(root / "mug" / name / "0.jpg", 2)  # Synology: a folder named like the photo
    for name in ("Thumbs.db", ".DS_Store", "._0.jpg", "desktop.ini"):
        (root / "mug" / name).write_bytes(b"x")
    assert len(list_images(root)) == 12
    added = add_dataset(root, "mine")
    assert added.manifest.class_names == ["mug", "plate"]
    assert not any("left out" in remark for remark in added.remarks)


def test_what_is_skipped_is_counted_and_named(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "photos")
    for name in ("a.svg", "b.svg", "c.mov", "notes.txt", "README"):
        (root / "mug" / name).write_bytes(b"x")
    (root / "mug" / "gone.jpg").symlink_to("nowhere.jpg")
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "mug" / "pipe.jpg")
    remarks = add_dataset(root, "mine").remarks
    assert "3 files are left out: a format that is not read (a.svg, b.svg, c.mov)" in remarks
    assert "1 file is left out: a link to nothing (gone.jpg)" in remarks
    assert "1 file is left out: no regular file (pipe.jpg)" in remarks
    assert "left out, no pictures by their names: 1 .txt, 1 without a suffix" in remarks


def test_heic_is_counted_where_it_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aape.pipeline import raster
    from aape.pipeline.datasets import images

    monkeypatch.setattr(raster, "readable_formats", lambda: ("JPEG", "PNG"))
    monkeypatch.setattr(images, "readable_suffixes", lambda: frozenset((".jpg", ".png")))
    root = two_classes(tmp_path / "photos")
    (root / "mug" / "IMG_1.HEIC").write_bytes(b"x")
    (said,) = look_through(root).remarks()
    assert said.startswith("1 file is left out: HEIC needs pillow-heif; install it with: pip")
    assert "IMG_1.HEIC" in said


def test_photos_of_all_suffixes_are_taken(tmp_path: Path) -> None:
    for suffix in ("jpg", "JPG", "jpe", "jfif", "png", "webp", "tif", "jp2", "bmp", "gif", "pgm"):
        (tmp_path / f"{suffix}_.{suffix}").write_bytes(b"x")
    assert len(list_images(tmp_path)) == 11


def test_same_content_is_by_bytes_alone(tmp_path: Path) -> None:
    a, b, c = photos(tmp_path / "a", 3)
    copy = tmp_path / "b" / "copy.jpg"
    copy.parent.mkdir()
    copy.write_bytes(a.read_bytes())
    near = tmp_path / "b" / "near.jpg"  # differs at its beginning, where it is not probed
    content = bytearray(b.read_bytes() + bytes(30000))
    (tmp_path / "b" / "long.jpg").write_bytes(content)
    content[5] ^= 1
    near.write_bytes(content)
    empty = [tmp_path / "b" / name for name in ("e1.jpg", "e2.jpg")]
    for path in empty:
        path.write_bytes(b"")
    paths = [copy, a, b, c, near, tmp_path / "b" / "long.jpg", *empty, tmp_path / "absent.jpg"]
    assert same_content(paths) == {path: path for path in paths} | {a: copy}


def test_copies_get_one_split_and_without_copies_nothing_changes() -> None:
    keys = [f"mug/{n}.jpg" for n in range(20)]
    assert own_split(keys) == own_split(keys, groups=keys)
    groups = [n // 4 for n in range(20)]
    splits = own_split(keys, groups=groups)
    assert all(len({splits[i] for i in range(20) if groups[i] == g}) == 1 for g in range(5))
    assert (splits.count("train"), splits.count("val"), splits.count("test")) == (12, 4, 4)
    assert own_split(["a", "b", "c"], groups=[0, 0, 0]) == ["train"] * 3


def test_copies_are_split_by_content_also_across_classes(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "photos", 10)
    for n in range(10):
        content = (root / "mug" / f"{n}.jpg").read_bytes()
        (root / "mug" / f"copy{n}.jpg").write_bytes(content)
    for n in range(4):
        (root / "plate" / f"mug{n}.jpg").write_bytes((root / "mug" / f"{n}.jpg").read_bytes())
    added = add_dataset(root, "mine")
    dataset = open_dataset("mine")
    split_of: dict[bytes, set[str]] = {}
    for split in ("train", "val", "test"):
        for item in dataset.items(split):
            split_of.setdefault(item.path.read_bytes(), set()).add(split)
    assert all(len(splits) == 1 for splits in split_of.values())
    (warning,) = added.warnings
    assert warning.startswith("the same 4 photos are under several classes: ")
    assert "under 'mug' and 'plate'" in warning


def test_copies_in_two_published_splits_are_said(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for split in ("train", "test"):
        two_classes(root / split)
    (root / "test" / "mug" / "9.jpg").write_bytes((root / "train" / "mug" / "0.jpg").read_bytes())
    add_dataset(root, "mine")
    check = check_dataset(open_dataset("mine").manifest, root)
    (warning,) = check.warnings
    assert warning.startswith("the same photo is in ")
    assert "and test: mug/0.jpg = mug/9.jpg" in warning
    assert f"warning: {warning}" in check.lines()


def test_unreadable_photos_are_left_out_of_add_or_stop_it(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "photos")
    (root / "mug" / "zero.jpg").write_bytes(b"")
    (root / "plate" / "zero.jpg").write_bytes(b"")
    whole = (root / "mug" / "0.jpg").read_bytes()
    (root / "mug" / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UserError, match=r"3 photos in .* cannot be read, the first: .*cut\.jpg"):
        add_dataset(root, "mine", strict=True)
    added = add_dataset(root, "mine")
    assert sum(some["labelled images"] for some in added.counts.values()) == 12
    assert [Path(entry.partition(": ")[0]).name for entry in added.unreadable] == (
        ["cut.jpg", "zero.jpg", "zero.jpg"]
    )
    assert "left out: 3 photos that cannot be read" in added.lines()
    assert not added.warnings, "empty files are copies of nothing"


def test_nothing_but_unreadable_photos_is_an_error(tmp_path: Path) -> None:
    for name in ("mug", "plate"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "0.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"2 photos in .* cannot be read"):
        add_dataset(tmp_path / "photos", "mine")

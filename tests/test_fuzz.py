"""A slice of ``make fuzz``, and what it found: each file that once ended in a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from places import REPOSITORY

from aape.adapter.results import MethodResult, Results
from aape.pipeline.datasets.archives import extract
from aape.pipeline.datasets.dataset import Dataset
from aape.pipeline.datasets.manifest import Manifest
from aape.pipeline.datasets.readers.columns import numbered
from aape.pipeline.datasets.readers.web_dataset import samples
from aape.pipeline.encoders.weights import is_torchscript
from aape.pipeline.errors import UserError
from aape.pipeline.paths import inside


@pytest.mark.slow
def test_a_slice_of_the_fuzzing_finds_nothing() -> None:
    """All readers but MATLAB's, which starts a process for every file."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", "--count", "1400", "--seed", "7"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 kinds of findings" in done.stdout
    assert "refuses" not in done.stderr, "a sound file must be read"


def dataset(layout: dict[str, object], root: Path, **changes: object) -> Dataset:
    about = {
        "name": "toy", "title": "Toy", "tasks": ["classification"], "licence": "none",
        "classes": ["owl", "kite"], "layouts": [layout], **changes,
    }  # fmt: skip
    manifest = Manifest.parse(about, "toy")
    return Dataset(manifest, root, manifest.layouts[0])


@pytest.mark.parametrize("number", ['2"1', "²", "9" * 5000, "-3", "0", "3", ""])
def test_a_list_whose_class_is_no_number(tmp_path: Path, number: str) -> None:
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "l.txt").write_text(f"1.png 1\n1.png {number}\n")
    lists = {"train": ["l.txt"]}
    layout = {"kind": "listing", "lists": lists, "images": ["{path}"], "label": "number"}
    with pytest.raises(UserError, match="no class of 'toy'"):
        _ = dataset(layout, tmp_path).contents


@pytest.mark.parametrize("label", ["0", "3", "-1"])
def test_a_label_of_cub_that_is_no_class(tmp_path: Path, label: str) -> None:
    (tmp_path / "images").mkdir()
    for name, value in (("images", "1.png"), ("image_class_labels", label),
                        ("train_test_split", "1")):  # fmt: skip
        (tmp_path / f"{name}.txt").write_text(f"1 {value}\n")
    with pytest.raises(UserError, match="class"):
        _ = dataset({"kind": "cub"}, tmp_path).contents


def test_shapes_that_are_no_class_of_the_manifest(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "images").mkdir(parents=True)
        (tmp_path / split / "questions.json").write_text(
            '[["what color is the shape?", "red", 1], ["what shape is it?", "circle", 1]]'
        )
    with pytest.raises(UserError, match="'red circle', which is no class"):
        _ = dataset({"kind": "easy_vqa"}, tmp_path).contents


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "/".join(["folder"] * 700)])
def test_a_path_that_no_disk_can_hold(tmp_path: Path, name: str) -> None:
    rows = {split: [[name, 0, "owl"]] for split in ("train", "val", "test")}
    (tmp_path / "c.json").write_text(json.dumps(rows))
    layout = {"kind": "coop_split", "split_file": "c.json"}
    with pytest.raises(UserError, match="is not a path"):
        _ = dataset(layout, tmp_path).contents
    with pytest.raises(UserError, match="longer than a path"):
        dataset({**layout, "split_file": name}, tmp_path)
    assert inside(tmp_path, "é" * 127) == tmp_path / ("é" * 127)


@pytest.mark.parametrize("label", ["1e999", "NaN", "null", "[]", "-1", "2", '"x"'])
def test_a_label_of_coop_that_is_none(tmp_path: Path, label: str) -> None:
    row = f'["1.png", {label}, "owl"]'
    (tmp_path / "c.json").write_text(f'{{"train": [{row}], "val": [], "test": [{row}]}}')
    with pytest.raises(UserError, match=r"c\.json"):
        _ = dataset({"kind": "coop_split", "split_file": "c.json"}, tmp_path).contents


def test_a_zip_whose_places_are_none(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    end = data.rindex(b"PK\x05\x06")
    data[end + 16 : end + 20] = (2**31).to_bytes(4, "little")  # where the directory begins
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        extract(tmp_path / "a.zip", tmp_path / "out")


def test_a_column_with_thousands_of_digits() -> None:
    assert numbered(["caption_2", "caption_" + "1" * 5000, "caption_1"]) == (
        "caption_1", "caption_2",
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"methods": None}, {"methods": [None]}, {"methods": [{"name": 1}]}, {"metrics": 7},
        {"unknown": 1}, {"intervals": {"a": 3}}, {"methods": [{"name": "x", "seeds": 4}]},
        {"methods": [{"name": "x", "seeds": [{"accuracy": "high"}]}]}, {"notes": [{}]},
    ],
)  # fmt: skip
def test_a_table_of_results_of_wrong_types(tmp_path: Path, change: dict[str, object]) -> None:
    rows = [MethodResult("zero-shot", [{"seed": 1, "accuracy": float("nan")}])]
    table = Results("classification", "f/1", "toy", "x", ["accuracy"], rows, "accuracy")
    table.save(tmp_path / "r.json")
    again = Results.load(tmp_path / "r.json")
    assert np.isnan(again.methods[0].mean("accuracy"))
    value = json.loads((tmp_path / "r.json").read_text())
    value.pop("sha256")
    (tmp_path / "r.json").write_text(json.dumps({**value, **change}))
    with pytest.raises(UserError, match="no table of results"):
        Results.load(tmp_path / "r.json")


@pytest.mark.parametrize("name", [b"\xff", b"\0"], ids=["in no encoding", "empty"])
def test_a_zip_whose_member_has_no_name(tmp_path: Path, name: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", "x")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # of the directory at the end
    data[entry + 9] |= 0x08  # the name is UTF-8
    data[entry + 46 : entry + 47] = name
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    assert not is_torchscript(tmp_path / "a.zip")


def test_a_zip_on_several_disks_is_no_torchscript(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("x/constants.pkl", "x")
    data = (tmp_path / "a.pt").read_bytes()
    end = data.rindex(b"PK\x05\x06")
    locator = b"PK\x06\x07" + (0).to_bytes(4, "little") + bytes(8) + (3).to_bytes(4, "little")
    (tmp_path / "a.pt").write_bytes(data[:end] + locator + data[end:])
    assert not is_torchscript(tmp_path / "a.pt")


def test_a_tar_that_asks_for_too_much_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise MemoryError  # as lzma does for a window of 4 GB

    monkeypatch.setattr(tarfile, "open", none_left)
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    (tmp_path / "a.tar").write_bytes(b"x")
    with pytest.raises(UserError, match="more memory than there is"):
        extract(tmp_path / "a.tar", tmp_path / "out")
    with pytest.raises(UserError, match="more memory than there is"):
        list(samples(tmp_path / "a.tar"))


@pytest.mark.slow
def test_fuzzing_guided_by_coverage_counts_inputs_and_says_what_died() -> None:
    pytest.importorskip("atheris")
    from benchmarks.fuzz.guided import guide

    number, found = guide("records of ours", "a.json", 1, 1)
    assert number > 20
    assert not found
    assert list(guide("no such reader", "a.json", 1, 1)[1]) == ["no such reader: it died (1)"]

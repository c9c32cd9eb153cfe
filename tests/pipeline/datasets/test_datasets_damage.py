"""Files of strangers that are damaged or of wrong types: every reader answers in one sentence."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aape.pipeline.datasets.add import add_dataset
from aape.pipeline.datasets.dataset import READERS
from aape.pipeline.datasets.manifest import Manifest
from aape.pipeline.errors import UserError

FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PIXEL = bytes.fromhex("89504e470d0a1a0a")

COCO = {
    "images": [{"id": 1, "file_name": "1.jpg"}],
    "annotations": [{"image_id": 1, "caption": "a"}],
}
KARPATHY = {
    "images": [
        {"filename": "1.jpg", "imgid": 1, "split": "train", "sentences": [{"raw": "a"}]},
        {"filename": "2.jpg", "imgid": 2, "split": "test", "sentences": [{"raw": "b"}]},
    ]
}
VQA_QUESTIONS = {"questions": [{"question_id": 1, "image_id": 1, "question": "what?"}]}
VQA_ANSWERS = {"annotations": [{"question_id": 1, "answers": [{"answer": "x"}]}]}
STUDIO = [
    {
        "data": {"image": "1.jpg"},
        "annotations": [{"result": [{"type": "choices", "value": {"choices": ["a"]}}]}],
    }
]
FIFTYONE = {"classes": ["a", "b"], "labels": {"1": 0, "2": "b"}}
SAMPLES = {
    "samples": [{"filepath": "1.jpg", "ground_truth": {"_cls": "Classification", "label": "a"}}]
}

# kind of layout: its section, and the JSON files it reads
JSON_READERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "coco_captions": (
        {"annotations": {"test": "c.json"}, "images": ["{name}"]},
        {"c.json": COCO},
    ),
    "nocaps": ({"annotations": {"test": "c.json"}, "images": ["{name}"]}, {"c.json": COCO}),
    "karpathy": ({"file": "k.json", "images": ["{name}"]}, {"k.json": KARPATHY}),
    "coop_split": (
        {"split_file": "s.json"},
        {"s.json": {"train": [["1.jpg", 0, "a"]], "val": [], "test": [["2.jpg", 1, "b"]]}},
    ),
    "vqa": (
        {
            "splits": {
                "test": {"questions": "q.json", "annotations": "a.json", "images": ["{stem}"]}
            }
        },
        {"q.json": VQA_QUESTIONS, "a.json": VQA_ANSWERS},
    ),
    "sugarcrepe": (
        {"files": {"x": "s.json"}, "images": ["{name}"]},
        {"s.json": {"0": {"filename": "1.jpg", "caption": "a", "negative_caption": "b"}}},
    ),
    "easy_vqa": (
        {},
        {
            "train/questions.json": [["is there a red shape?", "yes", 1]],
            "test/questions.json": [["what shape?", "circle", 2]],
        },
    ),
    "table": ({"files": ["t.jsonl"]}, {"t.jsonl": {"path": "1.jpg", "label": "a"}}),
    "table/label_studio": (
        {"files": ["t.json"], "form": "label_studio"},
        {"t.json": STUDIO},
    ),
    "table/fiftyone_labels": (
        {"files": ["t.json"], "form": "fiftyone_labels"},
        {"t.json": FIFTYONE},
    ),
    "table/fiftyone_samples": (
        {"files": ["t.json"], "form": "fiftyone_samples"},
        {"t.json": SAMPLES},
    ),
}
ODD_VALUES: list[Any] = [
    None, True, -1, 10**30, 1.5, float("nan"), "", "\ud800", [], [None], [[]], {}, {"": None},
    "../../x", {"raw": 1}, [1, 2, 3, 4],
]  # fmt: skip


def manifest(kind: str, layout: dict[str, Any]) -> Manifest:
    return Manifest.parse(
        {
            "name": "toy",
            "title": "toy",
            "tasks": ["classification"],
            "classes": [{"name": name} for name in ("a", "b", *SHAPES)],
            "layouts": [{"kind": kind.partition("/")[0], **layout}],
            "licence": "none",
        },
        "toy",
    )


SHAPES = [
    f"{colour} {shape}"
    for colour in ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
    for shape in ("circle", "rectangle", "triangle")
]


def read(root: Path, made: Manifest) -> None:
    """Read whole contents; only one sentence to the user may come instead."""
    layout = made.layouts[0]
    try:
        contents = READERS[layout.kind](root, layout, made)
    except UserError:
        return
    for items in contents.items.values():
        assert all(0 <= item.label < len(made.classes) for item in items)
    for images in contents.captions.values():
        assert all(type(text) is str for image in images for text in image.captions)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path]
    for key, entry in inner if isinstance(value, (dict, list)) else ():
        found += places(entry, (*path, key)) if isinstance(entry, (dict, list)) else [(*path, key)]
    return found


def changed(value: Any, at: tuple, new: Any) -> Any:
    if not at:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    if new == "remove":
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return value


def write(root: Path, name: str, value: Any) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", JSON_READERS)
def test_json_of_wrong_types_is_one_sentence(kind: str, tmp_path: Path) -> None:
    layout, files = JSON_READERS[kind]
    made = manifest(kind, layout)
    for name, value in files.items():
        write(tmp_path, name, value)
    contents = READERS[made.layouts[0].kind](tmp_path, made.layouts[0], made)
    assert contents != type(contents)(), "the undamaged files are read"
    for name, value in files.items():
        for at in places(value):
            for new in (*ODD_VALUES, "remove"):
                write(tmp_path, name, changed(value, at, new))
                read(tmp_path, made)
        write(tmp_path, name, value)


@pytest.mark.parametrize("kind", JSON_READERS)
@FEW
@given(cut=st.floats(0, 1), noise=st.binary(max_size=6))
def test_json_cut_or_overwritten_is_one_sentence(
    kind: str, tmp_path: Path, cut: float, noise: bytes
) -> None:
    layout, files = JSON_READERS[kind]
    made = manifest(kind, layout)
    for name, value in files.items():
        content = json.dumps(value).encode()
        at = int(cut * len(content))
        path = write(tmp_path, name, value)
        for damaged in (content[:at], content[:at] + noise + content[at + len(noise) :]):
            path.write_bytes(damaged)
            read(tmp_path, made)
        path.write_bytes(content)


@FEW
@given(
    text=st.text(st.sampled_from('path,label;|\t"\n\r\\\0 ab1.jg\ufeffé'), max_size=80),
    encoding=st.sampled_from(["utf-8", "utf-16", "latin-1"]),
    suffix=st.sampled_from(["csv", "tsv", "txt", "jsonl", "json"]),
)
def test_any_text_as_a_table(tmp_path: Path, text: str, encoding: str, suffix: str) -> None:
    content = text.encode(encoding, "replace")
    (tmp_path / f"t.{suffix}").write_bytes(b"path,label\n1.jpg,a\n" + content)
    read(tmp_path, manifest("table", {"files": [f"t.{suffix}"]}))
    (tmp_path / f"t.{suffix}").write_bytes(content)
    read(tmp_path, manifest("table", {"files": [f"t.{suffix}"]}))
    read(tmp_path, manifest("question_table", {"files": {"test": f"t.{suffix}"}, "images": ["{stem}"]}))  # fmt: skip  # noqa: E501


def parquet_file(root: Path) -> Path:
    rows = [{"image": {"bytes": PIXEL, "path": None}, "label": "a", "path": "1.jpg"}] * 3
    pq.write_table(pa.Table.from_pylist(rows), root / "t.parquet")
    return root / "t.parquet"


def arrow_file(root: Path) -> Path:
    rows = [{"image": {"bytes": PIXEL, "path": None}, "label": "a", "path": "1.jpg"}] * 3
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(str(root / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    return root / "t.arrow"


def tar_file(root: Path) -> Path:
    with tarfile.open(root / "t.tar", "w") as archive:
        for name, content in (("0.png", PIXEL), ("0.cls", b"a"), ("0.txt", b"words")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return root / "t.tar"


def matlab_file(root: Path) -> Path:
    scipy_io = pytest.importorskip("scipy.io")
    (root / "jpg").mkdir()
    scipy_io.savemat(root / "imagelabels.mat", {"labels": [[1, 2, 1]]})
    scipy_io.savemat(root / "setid.mat", {"trnid": [[1]], "valid": [[2]], "tstid": [[3]]})
    return root / "setid.mat"


@pytest.mark.parametrize(
    ("make", "kind", "layout"),
    [
        (parquet_file, "hugging_face", {"files": {"train": ["t.parquet"]}}),
        (parquet_file, "table", {"files": ["t.parquet"]}),
        (arrow_file, "hugging_face", {"files": {"train": ["t.arrow"]}}),
        (
            tar_file,
            "web_dataset",
            {"files": {"train": ["t.tar"]}, "label": "cls", "caption": "txt"},
        ),
        (matlab_file, "matlab", {"style": "flowers"}),
    ],
)
def test_damaged_binary_files_are_one_sentence(
    make: Callable[[Path], Path],
    kind: str,
    layout: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    path = make(tmp_path / "data")
    made = manifest(kind, layout)
    whole = path.read_bytes()
    contents = READERS[kind](tmp_path / "data", made.layouts[0], made)
    assert sum(map(len, contents.items.values())) > 0, "the undamaged file is read"
    rng = random.Random(0)
    for trial in range(8 if kind == "matlab" else 60):  # MATLAB files are read by a child process
        if trial % 3 == 0:
            damaged = whole[: rng.randrange(len(whole))]
        else:
            damaged = bytearray(whole)
            for _ in range(rng.choice((1, 8))):
                damaged[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(damaged)
        os.utime(path, ns=(trial, trial))  # the cache must not answer for it
        read(tmp_path / "data", made)


@FEW
@given(content=st.binary(max_size=60), suffix=st.sampled_from(["csv", "jsonl", "parquet", "tar"]))
def test_any_bytes_can_be_asked_to_be_added(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"t.{suffix}").write_bytes(content)
    with pytest.raises(UserError):
        add_dataset(tmp_path / f"t.{suffix}", "damaged", out=tmp_path / "damaged.yaml", force=True)

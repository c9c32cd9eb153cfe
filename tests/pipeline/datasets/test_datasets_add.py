"""`add`: a user's own images without code, whatever they are called."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aape.pipeline.datasets import load_manifest, open_dataset
from aape.pipeline.datasets.add import add_dataset, to_yaml
from aape.pipeline.datasets.manifest import Manifest
from aape.pipeline.datasets.readers.class_entries import readable_name
from aape.pipeline.errors import UserError

ODD_NAMES = [
    'say "cheese"',
    "it's; DROP TABLE prompts--",
    "<b>bold</b>",
    "עברית",
    "🦊 fox",
    "two\nlines",
    "yes",
    "null",
    "0012",
    "- dash: colon #hash",
    "{class} {}",
    "C:\\temp",
]


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AAPE_DATA", raising=False)


def image(path: Path, shade: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # by its path: copies of one picture would all be put into one split
    own = zlib.crc32(os.fsencode(path)).to_bytes(4, "big")[:3]
    colour = tuple(own) if shade is None else (shade, 0, 0)
    Image.new("RGB", (4, 4), colour).save(path)
    return path


def class_folders(root: Path, names: list[str], n: int = 5) -> Path:
    for name in names:
        for i in range(n):
            image(root / name / f"{i}.png")
    return root


def test_a_flat_folder_is_split_here_and_named_for_people(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", ["001.Long_sleeve_shirt", "hat"], 10)
    (photos / "empty").mkdir()
    (photos / ".hidden").mkdir()
    added = add_dataset(photos, "products")
    assert added.path == tmp_path / "home" / "datasets" / "products.yaml"
    assert "the folder 'empty' has no images and is no class" in added.remarks
    dataset = open_dataset("products")
    assert dataset.class_names == ["Long sleeve shirt", "hat"]
    assert [len(dataset.items(s)) for s in ("train", "val", "test")] == [10, 4, 6]
    assert dataset.split_note == "own deterministic split"


@pytest.mark.parametrize(("images", "shares"), [(19, (0.7, 0.0, 0.3)), (20, (0.5, 0.2, 0.3))])
def test_without_given_shares_small_classes_have_no_validation(
    tmp_path: Path, images: int, shares: tuple[float, ...]
) -> None:
    """By the class of middling size: one is larger here, one smaller."""
    photos = class_folders(tmp_path / "photos", ["middling"], images)
    class_folders(photos, ["large"], 30)
    class_folders(photos, ["small"], 3)
    added = add_dataset(photos, "products", shares=None)
    assert load_manifest(str(added.path)).shares == shares


def test_shares_of_the_split_can_be_chosen(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", ["cap", "hat"], 8)
    add_dataset(photos, "products", shares=(0.75, 0.0, 0.25))
    dataset = open_dataset("products")
    assert [len(dataset.items(split)) for split in ("train", "test")] == [12, 4]
    with pytest.raises(UserError, match="no labelled images in its val split"):
        dataset.items("val")
    with pytest.raises(UserError, match=r"must add up to 1; only val may be 0"):
        add_dataset(photos, "other", shares=(0.7, 0.0, 0.2))
    with pytest.raises(UserError, match=r"must add up to 1; only val may be 0"):
        add_dataset(photos, "other", shares=(1.0, 0.0, 0.0))


def test_edited_class_names_are_used(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", ["longsleeve", "outwear"])
    path = add_dataset(photos, "clothes").path
    text = path.read_text(encoding="utf-8")
    assert "- {name: longsleeve, folder: longsleeve}\n" in text
    text = text.replace("name: longsleeve", "name: long-sleeved shirt")
    path.write_text(text, encoding="utf-8")
    dataset = open_dataset("clothes")
    assert dataset.class_names == ["long-sleeved shirt", "outwear"]
    assert {item.label for item in dataset.items("train")} == {0, 1}


def test_split_folders_of_the_test_data(test_data: Path) -> None:
    added = add_dataset(test_data / "photos" / "clothing", "mine")
    assert added.counts == {
        "train": {"labelled images": 600},
        "val": {"labelled images": 186},
        "test": {"labelled images": 347},
    }
    birds = add_dataset(test_data / "photos" / "birds", "mybirds")
    assert sum(counts["labelled images"] for counts in birds.counts.values()) == 2349
    assert birds.counts["test"] == {"labelled images": 1200}, "the given test split is kept"
    assert "Ruby throated Hummingbird" in birds.manifest.class_names


@pytest.mark.parametrize(
    ("folders", "test", "remark"),
    [(["train"], 3, "no test folder"), (["train", "valid"], 10, "'valid' is the test split")],
)
def test_without_a_test_folder_there_is_a_test_split(tmp_path, folders, test, remark) -> None:
    for folder in folders:
        class_folders(tmp_path / "photos" / folder, ["a"], 10)
    added = add_dataset(tmp_path / "photos", "mine")
    assert added.counts["test"] == {"labelled images": test}
    assert any(remark in text for text in added.remarks)
    assert any("one class only" in text for text in added.remarks)


def test_odd_class_names_stay_data_in_folders_and_yaml(tmp_path: Path) -> None:
    names = sorted(name for name in ODD_NAMES if "/" not in name)
    photos = class_folders(tmp_path / "photos", names)
    add_dataset(photos, "odd")
    dataset = open_dataset("odd")
    assert [entry.folder or entry.name for entry in dataset.manifest.classes] == names
    assert {item.label for item in dataset.items("train")} == set(range(len(names)))
    for item in dataset.items("train"):
        assert item.path.parent.name == names[item.label]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_any_names_survive_the_manifest(names: list[str]) -> None:
    manifest = Manifest.model_validate(
        {
            "name": "any",
            "title": names[0],
            "tasks": ["classification"],
            "classes": [{"name": name} for name in [*names, "x" * 300]],
            "layouts": [{"kind": "image_folders", "flat": "."}],
            "licence": "CC0",
        }
    )
    assert Manifest.model_validate(yaml.safe_load(to_yaml(manifest))) == manifest


def test_long_names_come_from_a_table(tmp_path: Path) -> None:
    names = ["x" * 300, *ODD_NAMES]
    for i in range(len(names)):
        image(tmp_path / "images" / f"{i}.png")
    rows = [{"path": f"images/{i}.png", "label": name} for i, name in enumerate(names)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "odd.parquet")
    add_dataset(tmp_path / "odd.parquet", "odd")
    dataset = open_dataset("odd")
    found = {
        item.path.stem: dataset.manifest.classes[item.label]
        for items in dataset.contents.items.values()
        for item in items
    }
    assert {int(i): entry.folder or entry.name for i, entry in found.items()} == dict(
        enumerate(names)
    )


def test_a_label_is_no_path_and_a_nested_folder_is(tmp_path: Path) -> None:
    for i in range(4):
        image(tmp_path / f"{i}.png")
    (tmp_path / "t.csv").write_text("path,label\n0.png,<b>a</b>\n1.png,black/white\n2.png,3.5 mm\n")
    names = add_dataset(tmp_path / "t.csv", "labels").manifest.class_names
    assert names == ["3.5 mm", "<b>a</b>", "black/white"]
    added = add_dataset(tmp_path, "folder")
    assert added.manifest.class_names == names
    assert "read from the table t.csv" in added.remarks
    image(tmp_path / "nested" / "birds" / "barn_owl" / "0.png")
    image(tmp_path / "nested" / "cats" / "tabby" / "0.png")
    assert set(add_dataset(tmp_path / "nested", "n").manifest.class_names) <= {
        "barn owl", "tabby", "birds", "cats",
    }  # fmt: skip


def test_numbers_as_labels_are_names_not_ids(tmp_path: Path) -> None:
    for i in range(1, 4):
        image(tmp_path / f"{i}.png")
    (tmp_path / "t.csv").write_text(
        "filename,class\n" + "".join(f"{i}.png,{i}\n" for i in (1, 2, 3))
    )
    add_dataset(tmp_path / "t.csv", "numbers")
    dataset = open_dataset("numbers")
    items = [item for some in dataset.contents.items.values() for item in some]
    assert {item.path.stem: dataset.class_names[item.label] for item in items} == {
        "1": "1",
        "2": "2",
        "3": "3",
    }


def test_a_folder_with_metadata_as_the_hub_suggests(tmp_path: Path) -> None:
    for i in range(4):
        image(tmp_path / "train" / f"{i}.png")
    lines = [json.dumps({"file_name": f"train/{i}.png", "text": f"no {i}"}) for i in range(4)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    added = add_dataset(tmp_path, "captioned")
    assert added.manifest.tasks == ["retrieval", "captioning"]
    assert sum(counts["captions"] for counts in added.counts.values()) == 4


def test_images_with_text_files_and_coco_annotations(tmp_path: Path, test_data: Path) -> None:
    for name in ("cats/a", "cats/b", "dogs/c"):
        image(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"A picture called {name}.")
    added = add_dataset(tmp_path, "texts")
    assert added.manifest.tasks == ["classification", "retrieval", "captioning"]
    assert added.manifest.class_names == ["cats", "dogs"]
    assert sum(counts["captions"] for counts in added.counts.values()) == 3
    coco = add_dataset(test_data / "coco_mini", "mycoco")
    assert coco.counts["test"] == {"captioned images": 79, "captions": 395}


def test_question_tables(test_data: Path) -> None:
    added = add_dataset(test_data / "daquar", "rooms")
    assert added.manifest.tasks == ["vqa"]
    assert added.counts == {"train": {"questions": 2236}, "test": {"questions": 1067}}
    assert any("eval.csv is the test split" in remark for remark in added.remarks)


def hub_rows(root: Path, n: int = 6) -> list[dict]:
    return [
        {"image": {"bytes": image(root / f"{i}.png", i).read_bytes(), "path": None}, "label": i % 2}
        for i in range(n)
    ]


def test_hub_folder_with_parquet_files(tmp_path: Path) -> None:
    features = {"info": {"features": {"label": {"names": ["dog_bowl", "cat"]}}}}
    for split in ("train", "validation", "test"):
        table = pa.Table.from_pylist(hub_rows(tmp_path / "raw"))
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        (tmp_path / "hub" / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    added = add_dataset(tmp_path / "hub", "hub")
    assert added.manifest.class_names == ["dog bowl", "cat"]
    assert added.counts == {s: {"labelled images": 6} for s in ("train", "val", "test")}
    first = open_dataset("hub").items("val")
    assert {item.label for item in first} == {0, 1}
    written = {item.path: item.path.stat().st_mtime_ns for item in first}
    assert open_dataset("hub").items("val") == first
    assert {path: path.stat().st_mtime_ns for path in written} == written, "written once"


def test_folder_written_by_save_to_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a_b", "c"])}
    )
    rows = hub_rows(tmp_path / "raw", 20)
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "saved"))
    added = add_dataset(tmp_path / "saved", "saved")
    assert added.manifest.class_names == ["a b", "c"]
    assert [counts["labelled images"] for counts in added.counts.values()] == [10, 4, 6]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root.mkdir(), "has no images"),
        (lambda root: image(root / "a.png"), "neither a folder a class nor captions"),
        (lambda root: None, "does not exist"),
        (lambda root: (root / "cats").mkdir(parents=True), "has no images"),
    ],
)
def test_a_folder_with_no_usable_images_is_one_sentence(tmp_path, make, message) -> None:
    make(tmp_path / "photos")
    with pytest.raises(UserError, match=message):
        add_dataset(tmp_path / "photos", "mine")
    assert not (tmp_path / "home" / "datasets" / "mine.yaml").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,colour\n1,red\n", "no columns for paths and labels"),
        ("path,label\nabsent.png,x\n", "None of the first images"),
        ("path,label\n", "has no rows"),
        ("path,label\na.png,x\nabsent.png,x\n", "1 of the images .* not there"),
        ("path,label\na.png,\n", "only rows without a 'label'"),
    ],
)
def test_a_table_that_does_not_fit_is_one_sentence(tmp_path, text, message) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        add_dataset(tmp_path / "t.csv", "mine")


def test_names_are_not_taken_twice(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", ["a", "b"])
    with pytest.raises(UserError, match="name of a known data set"):
        add_dataset(photos, "pets")
    with pytest.raises(UserError, match="cannot be the name"):
        add_dataset(photos, "../evil")
    add_dataset(photos, "mine")
    with pytest.raises(UserError, match="exists already"):
        add_dataset(photos, "mine")
    add_dataset(photos, "mine", force=True)
    out = add_dataset(photos, "other", out=tmp_path / "other.yaml").path
    assert load_manifest(out).name == "other"


@pytest.mark.skipif(os.name != "posix", reason="names of bytes are a matter of POSIX")
def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", ["a"])
    image(Path(os.fsdecode(os.fsencode(photos) + b"/\xff\xfe"), "x.png"))
    with pytest.raises(UserError, match="not valid UTF-8"):
        add_dataset(photos, "mine")


def test_a_new_folder_after_adding_is_an_error_that_says_so(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", ["a", "b"])
    add_dataset(photos, "mine")
    class_folders(photos, ["late"])
    with pytest.raises(UserError, match=r"'late'.*Add them to the manifest"):
        open_dataset("mine").items("train")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("001.Black_footed", "Black footed"),
        ("__", "__"),
        ("3.5 mm", "3.5 mm"),
        ("x", "x"),
    ],
)
def test_readable_names(folder: str, name: str) -> None:
    assert readable_name(folder) == name

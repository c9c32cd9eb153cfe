"""Tables and folders as people have them: read as what they plainly say, or one sentence."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aape.pipeline.datasets import open_dataset
from aape.pipeline.datasets.add import Added, add_dataset
from aape.pipeline.datasets.hints import Hints
from aape.pipeline.datasets.readers.arrow_files import class_names
from aape.pipeline.datasets.readers.hub_files import hub_files
from aape.pipeline.datasets.readers.text_tables import parse_delimited
from aape.pipeline.datasets.remove import remove_dataset
from aape.pipeline.errors import UserError


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AAPE_DATA", raising=False)


def image(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(path)
    return path


def images(root: Path, n: int = 4, suffix: str = ".jpg") -> Path:
    for i in range(n):
        image(root / f"{i}{suffix}", 20 * i)
    return root


def counted(added: Added, what: str) -> int:
    return sum(counts.get(what, 0) for counts in added.counts.values())


def labelled(name: str = "mine") -> dict[str, str]:
    dataset = open_dataset(name)
    return {
        item.path.stem: dataset.class_names[item.label]
        for items in dataset.contents.items.values()
        for item in items
    }


def add_text(root: Path, text: str | bytes, name: str = "t.csv", hints: Hints | None = None):
    content = text.encode() if isinstance(text, str) else text
    (root / name).write_bytes(content)
    return add_dataset(root / name, "mine", force=True, hints=hints)


# --- one item a photo ---


def test_a_photo_in_several_rows_is_one_item_with_its_captions_in_one_split(tmp_path: Path) -> None:
    images(tmp_path, 8)
    rows = [
        f"{i}.jpg,{'mug' if i < 4 else 'plate'},caption {c}" for i in range(8) for c in range(5)
    ]
    added = add_text(tmp_path, "path,label,caption\n" + "\n".join(rows) + "\n")
    assert counted(added, "labelled images") == 8
    assert counted(added, "captions") == 40
    dataset = open_dataset("mine")
    for split in ("train", "val", "test"):
        of_items = {item.path for item in dataset.items(split)}
        assert of_items == {image.path for image in dataset.captions(split)}
        assert all(len(image.captions) == 5 for image in dataset.captions(split))


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n0.jpg,red\n0.jpg,shoe\n1.jpg,red\n",
        "path,red,shoe\n0.jpg,1,1\n1.jpg,1,0\n",
    ],
)
def test_several_labels_a_photo_are_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    images(tmp_path)
    with pytest.raises(UserError, match=r"1 photo more than one label \(first 0.jpg: red, shoe\)"):
        add_text(tmp_path, text)


def test_a_photo_in_two_splits_is_refused(tmp_path: Path) -> None:
    images(tmp_path)
    with pytest.raises(UserError, match=r"0\.jpg both in train and in test"):
        add_text(tmp_path, "path,label,split\n0.jpg,a,train\n0.jpg,a,test\n1.jpg,b,train\n")


# --- how a table is written ---


@pytest.mark.parametrize(
    "text",
    [
        "Image,Label\n0.jpg,mug\n1.jpg,plate\n",
        "File Name;Class Name\n0.jpg;mug\n1.jpg;plate\n",
        "path, label\n0.jpg, mug\n1.jpg, plate\n",
        "path|label\n0.jpg| mug\n1.jpg| plate\n",
        "path\tlabel\n0.jpg\tmug\n1.jpg\tplate\n",
        'path,label\n"0.jpg","mug"\n1.jpg,"plate\n',
        "\ufeffpath,label\r\n0.jpg,mug\r\n1.jpg,plate\r\n",
        "path,label\r0.jpg,mug\r1.jpg,plate\r",
        "path,label\n\n./0.jpg,mug \n.\\1.jpg,plate,,\n\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_delimiters_headers_quotes_line_ends(tmp_path: Path, text: str, encoding: str) -> None:
    images(tmp_path)
    encoded = text.lstrip("\ufeff").encode(encoding) if encoding == "utf-16" else text.encode()
    add_text(tmp_path, encoded)
    assert labelled() == {"0": "mug", "1": "plate"}


def test_latin_letters_of_windows(tmp_path: Path) -> None:
    images(tmp_path)
    add_text(tmp_path, "path,label\n0.jpg,théière\n1.jpg,café – noir\n".encode("cp1252"))
    assert labelled() == {"0": "théière", "1": "café – noir"}


def test_bare_commas_go_into_the_last_cell_and_are_counted() -> None:
    table = parse_delimited("id,label,title\n0,a,Nice, blue thing\n1,b,x\n2,c\n", Path("t.csv"))
    assert [row["title"] for row in table.rows] == ["Nice, blue thing", "x", ""]
    assert [remark.partition(":")[2][:7].strip() for remark in table.remarks] == [
        "1 row",
        "1 row",
    ]


def test_a_quoted_cell_may_run_over_lines_and_a_stray_quote_does_not() -> None:
    text = 'path,caption\n0.jpg,"two\nlines, ""quoted"""\n1.jpg,5" wide\n2.jpg,"open\n3.jpg,plain\n'
    rows = parse_delimited(text, Path("t.csv")).rows
    assert [row["caption"] for row in rows] == ['two\nlines, "quoted"', '5" wide', "open", "plain"]


def test_names_that_look_like_nothing_are_names(tmp_path: Path) -> None:
    names = ["NA", "null", "nan", "None", "n/a", "007", "yes", "1e3"]
    images(tmp_path, len(names))
    rows = "".join(f"{i}.jpg,{name}\n" for i, name in enumerate(names))
    add_text(tmp_path, "path,label\n" + rows)
    assert labelled() == {str(i): name for i, name in enumerate(names)}


def test_blanks_are_cut_and_case_alone_makes_no_class(tmp_path: Path) -> None:
    images(tmp_path)
    added = add_text(tmp_path, "path,label\n0.jpg,mug\n1.jpg,mug \n2.jpg,Mug\n3.jpg,plate\n")
    assert added.manifest.class_names == ["mug", "plate"]
    assert any("'mug', 'Mug' differ in case alone" in remark for remark in added.remarks)
    assert set(labelled().values()) == {"mug", "plate"}


def test_folders_that_differ_in_case_alone_are_one_class(tmp_path: Path) -> None:
    for split, name in (("train", "Mug"), ("train", "plate"), ("test", "mug"), ("test", "plate")):
        images(tmp_path / "photos" / split / name, 3)
    added = add_dataset(tmp_path / "photos", "mine")
    assert added.manifest.class_names == ["Mug", "plate"]
    assert added.counts["test"] == {"labelled images": 6}


def test_rows_without_label_and_empty_captions_are_counted(tmp_path: Path) -> None:
    images(tmp_path)
    text = "path,label,caption\n0.jpg,a,one\n1.jpg,,two\n2.jpg,-1,\n3.jpg,b,None\n"
    added = add_text(tmp_path, text)
    assert counted(added, "labelled images") == 2
    assert {"2 photos without a label were left out", "1 photo has no caption"} <= set(
        added.remarks
    )


def test_json_lines_of_mixed_types_lists_and_nulls(tmp_path: Path) -> None:
    images(tmp_path)
    rows = [
        {"file_name": "0.jpg", "captions": ["a", "b"], "label": "mug"},
        {"file_name": "1.jpg", "captions": None, "label": 3},
        {"file_name": "2.jpg", "captions": "c", "label": ["mug"]},
        {"file_name": "3.jpg", "extra": {"x": [None]}, "label": None},
    ]
    added = add_text(tmp_path, "\n".join(map(json.dumps, rows)), "metadata.jsonl")
    assert labelled() == {"0": "mug", "1": "3", "2": "mug"}
    assert counted(added, "captions") == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("null", "Entry 1 .* not an object"),
        ("{", "Line 1 .* not valid JSON"),
        ("[" * 9999, "Line 1"),
    ],
)
def test_damaged_json_lines_are_one_sentence(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        add_text(tmp_path, line, "t.jsonl")


# --- where the photos lie ---


def test_paths_of_windows_of_other_machines_and_without_suffix(tmp_path: Path) -> None:
    images(tmp_path / "images")
    for text in (
        "path,label\nimages\\0.jpg,a\nimages\\1.jpg,b\n",
        "path,label\nC:\\Users\\me\\images\\0.jpg,a\nC:\\Users\\me\\images\\1.jpg,b\n",
        "path,label\n/home/other/images/0.JPG,a\n/home/other/images/1.jpg,b\n",
        "id,breed\n0,a\n1,b\n",
        f"path,label\n{tmp_path}/images/0.jpg,a\n{tmp_path}/images/1.jpg,b\n",
    ):
        add_text(tmp_path, text)
        assert labelled() == {"0": "a", "1": "b"}


def test_photos_outside_the_folder_of_the_table(tmp_path: Path) -> None:
    images(tmp_path / "photos")
    (tmp_path / "tables").mkdir()
    text = "".join(f"{tmp_path}/photos/{i}.jpg,{'ab'[i % 2]}\n" for i in range(4))
    added = add_text(tmp_path / "tables", "path,label\n" + text)
    assert labelled() == {"0": "a", "1": "b", "2": "a", "3": "b"}
    assert added.manifest.installed == [str(tmp_path)]
    (tmp_path / "images").mkdir()
    images(tmp_path / "images")
    add_text(tmp_path / "tables", "path,label\n0.jpg,a\n3.jpg,b\n")
    assert labelled() == {"0": "a", "3": "b"}


def test_another_photo_of_the_same_name_is_not_taken(tmp_path: Path) -> None:
    images(tmp_path / "train", 3)
    images(tmp_path / "test", 1)
    text = "path,label\n" + "".join(f"train/{i}.jpg,a\n" for i in range(3)) + "test/2.jpg,b\n"
    with pytest.raises(UserError, match=r"1 of the images .* not there.*--skip-missing"):
        add_text(tmp_path, text)
    added = add_text(tmp_path, text, hints=Hints(skip_missing=True))
    assert counted(added, "labelled images") == 3
    assert "1 row whose photo is not there was left out" in added.remarks


def test_columns_may_be_named(tmp_path: Path) -> None:
    images(tmp_path)
    text = "bild,kind,words,part\n0.jpg,a,x,lernen\n1.jpg,b,y,pruefen\n"
    with pytest.raises(UserError, match=r"--path-column.*bild, kind, words, part"):
        add_text(tmp_path, text)
    hints = Hints("Bild", "kind", ("words",), "part", {"lernen": "train", "pruefen": "test"})
    added = add_text(tmp_path, text, hints=hints)
    assert added.counts["test"] == {"labelled images": 1, "captioned images": 1, "captions": 1}
    with pytest.raises(UserError, match=r"no column 'nope'"):
        add_text(tmp_path, text, hints=Hints(path_column="nope"))
    hints = Hints("bild", "kind", (), "part")
    with pytest.raises(UserError, match=r"split 'lernen'.*--split-as lernen=train"):
        add_text(tmp_path, text, hints=hints)


# --- folders ---


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    for name in ("bus", "car", "train"):
        images(tmp_path / "photos" / name)
    assert add_dataset(tmp_path / "photos", "mine").manifest.class_names == ["bus", "car", "train"]


def test_split_folders_without_classes_are_no_classes(tmp_path: Path) -> None:
    images(tmp_path / "photos" / "train")
    images(tmp_path / "photos" / "test")
    with pytest.raises(UserError, match=r"'test', 'train' .* no folders of classes"):
        add_dataset(tmp_path / "photos", "mine")
    (tmp_path / "photos" / "train.csv").write_text("id,label\n0,a\n1,b\n2,a\n3,b\n")
    add_dataset(tmp_path / "photos", "mine")
    assert {i.path.parent.name for i in open_dataset("mine").items("train")} <= {"train", "test"}


def test_split_folders_of_other_names(tmp_path: Path) -> None:
    for split in ("training_set", "seg-test"):
        for name in ("cat", "dog"):
            images(tmp_path / "photos" / split / name)
    added = add_dataset(tmp_path / "photos", "mine")
    assert added.manifest.class_names == ["cat", "dog"]
    assert added.counts["test"] == {"labelled images": 8}


def test_inner_folders_are_classes_unless_their_names_repeat(tmp_path: Path) -> None:
    for name in ("clothes/jeans", "clothes/shirt", "home/mug"):
        images(tmp_path / "deep" / name)
    added = add_dataset(tmp_path / "deep", "mine")
    assert [(e.name, e.folder) for e in added.manifest.classes] == [
        ("jeans", "clothes/jeans"),
        ("shirt", "clothes/shirt"),
        ("mug", "home/mug"),
    ]
    assert counted(added, "labelled images") == 12
    assert any("inner folders are the classes" in remark for remark in added.remarks)
    for name in ("mug/2023", "mug/2024", "plate/2023"):
        images(tmp_path / "years" / name)
    assert add_dataset(tmp_path / "years", "years").manifest.class_names == ["mug", "plate"]


def test_a_class_of_one_photo_is_named(tmp_path: Path) -> None:
    images(tmp_path / "photos" / "a", 1)
    images(tmp_path / "photos" / "b", 5)
    remarks = add_dataset(tmp_path / "photos", "mine").remarks
    assert any("one class has a single photo" in r and r.endswith("'a'") for r in remarks)


def test_every_written_class_has_its_folder(tmp_path: Path) -> None:
    images(tmp_path / "photos" / "mug")
    images(tmp_path / "photos" / "black_cup")
    text = add_dataset(tmp_path / "photos", "mine").path.read_text(encoding="utf-8")
    assert "- {name: mug, folder: mug}\n" in text
    assert "- {name: black cup, folder: black_cup}\n" in text


def test_remove_forgets_the_manifest_and_leaves_the_photos(tmp_path: Path) -> None:
    photos = images(tmp_path / "photos" / "mug").parent
    path = add_dataset(photos, "mine").path
    assert remove_dataset("mine").path == path
    assert not path.exists()
    assert len(list(photos.rglob("*.jpg"))) == 4
    with pytest.raises(UserError, match="comes with the package"):
        remove_dataset("pets")
    with pytest.raises(UserError, match="none was added"):
        remove_dataset("../mine")


# --- layouts of other programs ---


def flickr_table(root: Path) -> None:
    images(root / "Images")
    rows = [f"{i}.jpg,A dog runs {c} ." for i in range(4) for c in range(5)]
    (root / "captions.txt").write_text("image,caption\n" + "\n".join(rows))


def flickr_tokens(root: Path) -> None:
    images(root / "Flicker8k_Dataset", 6)
    rows = [f"{i}.jpg#{c}\tA dog runs {c} ." for i in range(6) for c in range(5)]
    (root / "Flickr8k.token.txt").write_text("\n".join(rows))
    for word, names in (("train", "01"), ("dev", "2"), ("test", "3")):
        lines = "".join(f"{name}.jpg\n" for name in names)
        (root / f"Flickr_8k.{word}Images.txt").write_text(lines)


def flickr30k(root: Path) -> None:
    images(root / "flickr30k_images")
    rows = [f'{i}.jpg| {c}| A dog , "grass" .' for i in range(4) for c in range(5)]
    (root / "results.csv").write_text("image_name| comment_number| comment\n" + "\n".join(rows))


def karpathy(root: Path) -> None:
    images(root / "images")
    flickr_table(root)
    rows = [
        {"filename": f"{i}.jpg", "imgid": i, "split": s, "sentences": [{"raw": "a dog"}] * 5}
        for i, s in enumerate(("train", "restval", "val", "test"))
    ]
    (root / "my_split.json").write_text(json.dumps({"images": rows}))


def coco_with_folders(root: Path) -> None:
    images(root / "images" / "sub")
    rows = [{"id": i, "file_name": f"sub/{i}.jpg"} for i in range(4)]
    notes = [{"image_id": i, "caption": f"c{c}"} for i in range(4) for c in range(5)]
    notes.append({"image_id": 0, "caption": None})
    (root / "annotations").mkdir()
    content = json.dumps({"images": rows, "annotations": notes})
    (root / "annotations" / "captions_val.json").write_text(content)


def five_lines(root: Path) -> None:
    images(root)
    for i in range(4):
        (root / f"{i}.txt").write_text("\n".join(f"line {c}" for c in range(5)) + "\n\n")


@pytest.mark.parametrize(
    ("make", "splits"),
    [
        (flickr_table, {"train": 2, "val": 1, "test": 1}),
        (flickr_tokens, {"train": 2, "val": 1, "test": 1}),
        (flickr30k, {"train": 2, "val": 1, "test": 1}),
        (karpathy, {"train": 2, "val": 1, "test": 1}),
        (coco_with_folders, {"test": 4}),
        (five_lines, {"train": 2, "val": 1, "test": 1}),
    ],
)
def test_captions_as_they_are_downloaded(
    tmp_path: Path, make: Callable[[Path], None], splits: dict[str, int]
) -> None:
    root = tmp_path / "download"
    root.mkdir()
    make(root)
    added = add_dataset(root, "mine")
    assert added.manifest.tasks == ["retrieval", "captioning"]
    assert {s: c["captioned images"] for s, c in added.counts.items()} == splits
    dataset = open_dataset("mine")
    for split in splits:
        assert all(len(i.captions) == 5 and i.path.is_file() for i in dataset.captions(split))


@pytest.mark.parametrize(
    ("make", "file"),
    [(karpathy, "my_split.json"), (coco_with_folders, "annotations/captions_val.json")],
)
def test_a_caption_file_by_its_own_name(
    tmp_path: Path, make: Callable[[Path], None], file: str
) -> None:
    """Also where another file of the kind lies beside it, which the folder would be read from."""
    make(tmp_path)
    other = Path(file).with_name("dataset_other.json")
    (tmp_path / other).write_text((tmp_path / file).read_text())
    added = add_dataset(tmp_path / file, "mine")
    assert added.manifest.layouts[0].kind in ("karpathy", "coco_captions")
    assert counted(added, "captioned images") == 4
    assert f"read from {file}, not from {other}" in added.remarks or "annotations" in file


def test_roboflow_one_column_a_class(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        images(tmp_path / "robo" / split)
        rows = "".join(f"{i}.jpg, {i % 2}, {1 - i % 2}\n" for i in range(4))
        (tmp_path / "robo" / split / "_classes.csv").write_text("filename, mug, plate\n" + rows)
    added = add_dataset(tmp_path / "robo", "mine")
    assert added.counts == {s: {"labelled images": 4} for s in ("train", "val", "test")}
    assert labelled() == {"0": "plate", "1": "mug", "2": "plate", "3": "mug"}


def test_label_studio(tmp_path: Path) -> None:
    images(tmp_path)
    tasks = [
        {
            "data": {"image": f"/data/upload/1/8f3c2d1{i}-{i}.jpg"},
            "annotations": [
                {"result": [{"type": "choices", "value": {"choices": ["ab"[i % 2]]}}]},
                {"result": [{"type": "choices", "value": {"choices": ["zz"]}}], "was_cancelled": 1},
            ],
        }
        for i in range(4)
    ]
    add_text(tmp_path, json.dumps(tasks), "project-1.json")
    assert labelled() == {"0": "a", "1": "b", "2": "a", "3": "b"}
    tasks[0]["annotations"][0]["result"][0]["value"]["choices"].append("b")
    with pytest.raises(UserError, match="more than one label"):
        add_text(tmp_path, json.dumps(tasks), "project-1.json")
    short = [{"image": f"/data/local-files/?d={i}.jpg", "choice": "ab"[i % 2], "annotator": 1} for i in range(4)]  # fmt: skip  # noqa: E501
    add_text(tmp_path, json.dumps(short), "min.json")
    assert labelled() == {"0": "a", "1": "b", "2": "a", "3": "b"}


def test_fiftyone(tmp_path: Path) -> None:
    for split in ("train", "test"):
        images(tmp_path / "a" / split / "data")
        labels = {"classes": ["cat", "dog"], "labels": {str(i): i % 2 for i in range(4)}}
        (tmp_path / "a" / split / "labels.json").write_text(json.dumps(labels))
    added = add_dataset(tmp_path / "a", "mine")
    assert added.counts == {s: {"labelled images": 4} for s in ("train", "test")}
    assert labelled() == {"0": "cat", "1": "dog", "2": "cat", "3": "dog"}
    images(tmp_path / "b" / "data")
    samples = [
        {
            "filepath": f"data/{i}.jpg",
            "tags": ["test" if i else "train"],
            "ground_truth": {"_cls": "Classification", "label": "ab"[i % 2]},
        }
        for i in range(4)
    ]
    (tmp_path / "b" / "samples.json").write_text(json.dumps({"samples": samples}))
    added = add_dataset(tmp_path / "b", "other")
    assert added.counts == {"train": {"labelled images": 1}, "test": {"labelled images": 3}}


def test_metadata_in_each_split_and_tables_named_like_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        images(tmp_path / "a" / split)
        rows = "".join(f"{i}.jpg,{'ab'[i % 2]}\n" for i in range(4))
        (tmp_path / "a" / split / "metadata.csv").write_text("file_name,label\n" + rows)
    assert add_dataset(tmp_path / "a", "mine").counts["test"] == {"labelled images": 4}
    images(tmp_path / "b")
    for split, i in (("train", 0), ("val", 1), ("test", 2)):
        (tmp_path / "b" / f"{split}.csv").write_text(f"path,label\n{i}.jpg,{'aab'[i]}\n")
    added = add_dataset(tmp_path / "b", "other")
    assert added.counts == {s: {"labelled images": 1} for s in ("train", "val", "test")}
    alone = add_dataset(tmp_path / "b" / "train.csv", "alone")
    assert any("beside it was not read" in remark for remark in alone.remarks)


# --- the hub ---


def hub(
    root: Path,
    file: str,
    columns: dict[str, list],
    features: dict | None = None,
    image: str = "image",
) -> None:
    n = len(next(iter(columns.values())))
    contents = [(image_bytes(i)) for i in range(n)]
    table = pa.table({**columns, image: [{"bytes": c, "path": None} for c in contents]})
    if features:
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / file)


def image_bytes(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


LABELS = {"names": ["mug", "plate"], "_type": "ClassLabel"}
TRAIN = "data/train-00000-of-00001.parquet"


def test_hub_labels_of_minus_one_are_left_out_and_counted(tmp_path: Path) -> None:
    hub(tmp_path / "h", TRAIN, {"label": [0, 1] * 4}, {"label": LABELS})
    hub(tmp_path / "h", TRAIN.replace("train", "test"), {"label": [-1] * 3}, {"label": LABELS})
    added = add_dataset(tmp_path / "h", "mine")
    assert counted(added, "labelled images") == 8
    assert {"train", "test"} <= set(added.counts), "what has labels is split here"
    assert "3 photos without a label were left out" in added.remarks


@pytest.mark.parametrize("feature", [[LABELS], {"feature": LABELS, "_type": "Sequence"}])
def test_hub_lists_of_labels_are_refused(tmp_path: Path, feature: object) -> None:
    hub(tmp_path / "h", TRAIN, {"labels": [[0, 1]] * 4}, {"labels": feature})
    with pytest.raises(UserError, match=r"more than one label .*mug, plate"):
        add_dataset(tmp_path / "h", "mine")


def test_hub_columns_of_other_names(tmp_path: Path) -> None:
    hub(tmp_path / "a", TRAIN, {"articleType": ["Shirts", "Jeans"] * 4})
    assert add_dataset(tmp_path / "a", "a").manifest.class_names == ["Jeans", "Shirts"]
    hub(tmp_path / "b", TRAIN, {"fine_label": [0, 1] * 4}, {"fine_label": LABELS}, image="img")
    assert add_dataset(tmp_path / "b", "b").manifest.class_names == ["mug", "plate"]
    hub(tmp_path / "c", TRAIN, {f"caption_{i}": [f"c{i}"] * 8 for i in range(5)})
    added = add_dataset(tmp_path / "c", "c")
    assert (counted(added, "captioned images"), counted(added, "captions")) == (8, 40)
    table = pa.table({"image": [image_bytes(i) for i in range(8)], "label": ["x", "y"] * 4})
    pq.write_table(table, tmp_path / "plain.parquet")
    assert counted(add_dataset(tmp_path / "plain.parquet", "d"), "labelled images") == 8


def test_hub_one_row_a_caption_is_one_photo(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": image_bytes(i), "path": None}, "caption": f"{i} {c}"} for i in range(6) for c in range(5)]  # fmt: skip  # noqa: E501
    (tmp_path / "h").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "h" / "train.parquet")
    added = add_dataset(tmp_path / "h", "mine")
    assert (counted(added, "captioned images"), counted(added, "captions")) == (6, 30)


def test_hub_split_column_unknown_split_and_configurations(tmp_path: Path) -> None:
    splits = ["train", "train", "val", "test"]
    hub(tmp_path / "a", "data/test-00000-of-00001.parquet", {"caption": [["x", "y"]] * 4, "split": splits})  # fmt: skip  # noqa: E501
    counts = add_dataset(tmp_path / "a", "a").counts
    assert {s: c["captions"] for s, c in counts.items()} == {"train": 4, "val": 2, "test": 2}
    hub(tmp_path / "b", TRAIN, {"label": [0, 1] * 4}, {"label": LABELS})
    odd = TRAIN.replace("train", "unsupervised")
    hub(tmp_path / "b", odd, {"label": [0, 1] * 4}, {"label": LABELS})
    with pytest.raises(UserError, match=r"'unsupervised'.*--split-as unsupervised=train"):
        add_dataset(tmp_path / "b", "b")
    hints = Hints(split_as={"unsupervised": "none"})
    added = add_dataset(tmp_path / "b", "b", hints=hints)
    assert counted(added, "labelled images") == 8
    assert "the split 'unsupervised' was left out" in added.remarks
    for name, n in (("small", 2), ("large", 4)):
        columns = {"label": [0, 1] * n}
        hub(tmp_path / "c", f"{name}/train-00000-of-00001.parquet", columns, {"label": LABELS})
    with pytest.raises(UserError, match=r"configurations: large, small.*--configuration large"):
        add_dataset(tmp_path / "c", "c")
    added = add_dataset(tmp_path / "c", "c", hints=Hints(configuration="small"))
    assert counted(added, "labelled images") == 4


CARD = """---
title: mugs ---
license: mit
configs:
%s
---
# Mugs
"""


@pytest.mark.parametrize(
    ("configs", "found"),
    [
        # the forms of the hub: a pattern, patterns, and patterns by split
        ("- {config_name: a, data_files: a/x-0.parquet}", {"train": ["a/x-0.parquet"]}),
        (
            "- {data_files: ['a/x-*', './a/x-1.parquet']}",
            {"train": ["a/x-0.parquet", "a/x-1.parquet"]},
        ),
        (
            "- {data_files: [{split: train, path: [a/x-0.parquet]}, {split: test, path: b/*}]}",
            {"train": ["a/x-0.parquet"], "test": ["b/y.parquet"]},
        ),
        # a star stays in its folder, two stars do not
        ("- {data_files: b/*}", {"train": ["b/y.parquet"]}),
        ("- {data_files: '*'}", None),
        ("- {data_files: b/**/*.parquet}", {"train": ["b/c/test.parquet", "b/y.parquet"]}),
        ("- {data_dir: b, data_files: c/*}", {"train": ["b/c/test.parquet"]}),
        ("- {data_dir: ./b/c/}", {"test": ["b/c/test.parquet"]}),
        # what names nothing here says nothing
        ("- 3\n- {data_files: 3}\n- {data_files: [{split: x}]}\n- {data_dir: b-}", None),
        ("- {data_files: a/*, since: 2026-99-99}", None),
        ("- {data_files: a/*, since: !!timestamp x}", None),
    ],
)
def test_the_card_of_a_hub_folder_states_the_files(tmp_path: Path, configs: str, found) -> None:
    every = ["a/x-0.parquet", "a/x-1.parquet", "b/c/test.parquet", "b/y.parquet"]
    for file in every:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "README.md").write_text(CARD % configs, encoding="utf-8-sig")
    if found is None:
        with pytest.raises(UserError, match="configurations: a, b, b/c"):
            hub_files(tmp_path, (".parquet",), Hints())
    else:
        assert hub_files(tmp_path, (".parquet",), Hints()) == (found, [])


def test_configurations_that_the_card_states_are_chosen_by_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.parquet").touch()
    pairs = (("one", "a"), ("two", "b"))
    rows = [f"- {{config_name: {name}, data_files: {file}.parquet}}" for name, file in pairs]
    (tmp_path / "README.md").write_text(CARD % "\n".join(rows))
    with pytest.raises(UserError, match="2 configurations: one, two"):
        hub_files(tmp_path, (".parquet",), Hints())
    with pytest.raises(UserError, match=r"no configuration 'b'.*one, two"):
        hub_files(tmp_path, (".parquet",), Hints(configuration="b"))
    chosen = hub_files(tmp_path, (".parquet",), Hints(configuration="two"))
    assert chosen == ({"train": ["b.parquet"]}, [])
    with pytest.raises(UserError, match="No split of"):
        hub_files(tmp_path, (".parquet",), Hints(configuration="two", split_as={"train": "none"}))


def test_a_hub_folder_whose_splits_are_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "data-00000-of-00001.arrow").touch()
    (tmp_path / "dataset_dict.json").write_text("{}")
    os.mkfifo(tmp_path / "README.md")  # is not waited for
    assert hub_files(tmp_path, (".arrow",), Hints())[0] == {
        split: [f"{split}/data-00000-of-00001.arrow"] for split in ("train", "test")
    }


def test_cells_of_a_hub_table_may_name_image_files(tmp_path: Path) -> None:
    """The ``datasets`` library writes a path without bytes for images that lie beside the table."""
    images(tmp_path / "h" / "data" / "p")
    cells = [{"bytes": None, "path": f"p/{i}.jpg"} for i in range(4)]
    table = pa.table({"image": cells, "label": ["mug", "plate"] * 2})
    pq.write_table(table, tmp_path / "h" / TRAIN)
    assert counted(add_dataset(tmp_path / "h", "mine"), "labelled images") == 4
    for path, said in [
        ("p/9.jpg", r"neither bytes nor a file: 'p/9\.jpg'"),
        ("p/notes.txt", "neither bytes nor a file"),
        ("../../../etc/x.jpg", "leads out of|outside"),
    ]:
        cells[0] = {"bytes": None, "path": path}
        odd = pa.table({"image": cells, "label": ["mug", "plate"] * 2})
        pq.write_table(odd, tmp_path / "h" / TRAIN)
        with pytest.raises(UserError, match=said):
            add_dataset(tmp_path / "h", "odd")


def test_the_validation_split_of_a_hub_folder_is_its_test_split_if_it_has_no_other(
    tmp_path: Path,
) -> None:
    hub(tmp_path / "h", TRAIN, {"label": [0, 1] * 4}, {"label": LABELS})
    val = TRAIN.replace("train", "validation")
    hub(tmp_path / "h", val, {"label": [1, 0] * 2}, {"label": LABELS})
    added = add_dataset(tmp_path / "h", "mine")
    counts = {split: count["labelled images"] for split, count in added.counts.items()}
    assert counts == {"train": 8, "test": 4}
    assert "there is no test split: the validation split is the test split" in added.remarks


def test_names_of_classes_by_number_go_by_the_number(tmp_path: Path) -> None:
    """As older releases wrote them, and as a program writes them that sorts keys."""
    names = {str(i): f"class {i}" for i in range(11)}
    feature = {"names": dict(sorted(names.items())), "_type": "ClassLabel"}
    hub(tmp_path / "h", TRAIN, {"label": list(range(11))}, {"label": feature})
    assert add_dataset(tmp_path / "h", "mine").manifest.class_names == list(names.values())
    assert class_names({"label": {"names": {"1": "a", "2": "b"}}}, "label") == []


def test_of_two_columns_of_classes_one_is_taken_and_the_other_named(tmp_path: Path) -> None:
    columns = {"coarse": [0, 1] * 4, "fine": [1, 0] * 4}
    hub(tmp_path / "h", TRAIN, columns, {"coarse": LABELS, "fine": LABELS})
    added = add_dataset(tmp_path / "h", "mine")
    assert "the classes are those of 'coarse'; --label-column may name fine" in added.remarks
    other = add_dataset(tmp_path / "h", "other", hints=Hints(label_column="fine"))
    assert not any("the classes are those of" in remark for remark in other.remarks)


def test_photos_in_several_rows_of_other_labels_are_refused(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": image_bytes(i // 2), "path": None}, "label": "ab"[i % 2]} for i in range(8)]  # fmt: skip  # noqa: E501
    (tmp_path / "h").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "h" / "train.parquet")
    with pytest.raises(UserError, match=r"4 photos more than one label .*: a, b\)"):
        add_dataset(tmp_path / "h", "mine")


# --- WebDataset ---


def tar(path: Path, members: dict[str, bytes], links: tuple[str, ...] = ()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(entry)
    return path


def test_web_dataset_with_labels_captions_and_names(tmp_path: Path) -> None:
    for split in ("train", "test"):
        members: dict[str, bytes] = {}
        for i in range(4):
            members |= {f"./{i}.png": image_bytes(i), f"./{i}.cls": str(i % 2).encode()}
            members |= {f"./{i}.txt": b"one\ntwo"}
        tar(tmp_path / "w" / f"{split}-000000.tar", members)
    (tmp_path / "w" / "classnames.txt").write_text("mug\nplate\n")
    added = add_dataset(tmp_path / "w", "mine")
    assert added.manifest.class_names == ["mug", "plate"]
    assert added.counts["test"] == {"labelled images": 4, "captioned images": 4, "captions": 8}


def test_web_dataset_writes_nothing_outside_the_cache(tmp_path: Path) -> None:
    members = {"../../out.png": image_bytes(1), "../../out.json": b'{"caption": "a"}'}
    members |= {"/abs.png": image_bytes(2), "/abs.json": b'{"caption": "b"}', "k.json": b"{"}
    file = tar(tmp_path / "w" / "x.tar", members, links=("link.png",))
    added = add_dataset(file, "mine")
    assert counted(added, "captions") == 2
    written = set(tmp_path.rglob("*.png"))
    assert written
    assert all((tmp_path / "home") in path.parents for path in written)


def test_a_tar_without_labels_is_one_sentence(tmp_path: Path) -> None:
    file = tar(tmp_path / "w" / "x.tar", {"0.png": image_bytes(1)})
    with pytest.raises(UserError, match=r"neither labels .* nor captions"):
        add_dataset(file, "mine")

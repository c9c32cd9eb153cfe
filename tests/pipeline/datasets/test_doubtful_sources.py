"""Sources that can be read in two ways: the likelier one with a word, or one sentence."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aape.pipeline.datasets import Dataset, open_dataset
from aape.pipeline.datasets.add import add_dataset
from aape.pipeline.datasets.hints import Hints
from aape.pipeline.datasets.own import find_or_add
from aape.pipeline.errors import UserError


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AAPE_DATA", raising=False)


def photos(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        Image.new("RGB", (4, 4), tuple(zlib.crc32(str(path).encode()).to_bytes(4)[:3])).save(path)


def table(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def all_photos(dataset: Dataset) -> dict[str, str]:
    """The class of every photo, by its path below the root."""
    return {
        item.path.relative_to(dataset.root).as_posix(): dataset.class_names[item.label]
        for items in dataset.contents.items.values()
        for item in items
    }


TEN = [f"{i}.png" for i in range(10)]


# --- photos of one name in several folders ---


@pytest.mark.parametrize("folder", ["train", "train_images", "images/train"])
@pytest.mark.parametrize("column", ["id", "image"])
def test_a_table_takes_the_folder_of_its_own_name(tmp_path: Path, folder: str, column: str) -> None:
    photos(tmp_path / "kag" / folder, *TEN)
    photos(tmp_path / "kag" / folder.replace("train", "test"), *TEN)
    ends = "" if column == "id" else ".png"
    rows = "".join(f"{i}{ends},{'cat' if i % 2 else 'dog'}\n" for i in range(10))
    file = table(tmp_path / "kag" / "train.csv", f"{column},label\n{rows}")
    for source in (file, file.parent):
        add_dataset(source, "mine", force=True)
        assert set(all_photos(open_dataset("mine"))) == {f"{folder}/{name}" for name in TEN}


def test_a_photo_that_the_own_folder_lacks_is_missing_not_taken_elsewhere(tmp_path: Path) -> None:
    photos(tmp_path / "train", *TEN[1:])
    photos(tmp_path / "test", *TEN)
    rows = "".join(f"{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(10))
    with pytest.raises(UserError, match=r"1 of the images .*train/0\.png"):
        add_dataset(table(tmp_path / "train.csv", "image,label\n" + rows), "mine")


def test_tables_of_splits_have_their_own_folders(tmp_path: Path) -> None:
    rows = "".join(f"{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(10))
    for split in ("train", "test"):
        photos(tmp_path / "kag" / split, *TEN)
        table(tmp_path / "kag" / f"{split}.csv", "image,label\n" + rows)
    add_dataset(tmp_path / "kag", "mine")
    for split in ("train", "test"):
        assert {item.path.parent.name for item in open_dataset("mine").items(split)} == {split}


def test_folders_that_tie_are_asked_for_and_copies_are_not(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        photos(tmp_path / "kag" / folder, *TEN)
    rows = "".join(f"{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(10))
    file = table(tmp_path / "kag" / "labels.csv", "image,label\n" + rows)
    with pytest.raises(UserError, match=r"labels\.csv names are in several folders.*'one', 'two'"):
        add_dataset(file, "mine")
    for name in TEN:
        (tmp_path / "kag" / "two" / name).write_bytes(
            (tmp_path / "kag" / "one" / name).read_bytes()
        )
    add_dataset(file, "mine")
    assert {Path(name).parent.name for name in all_photos(open_dataset("mine"))} == {"one"}


def test_photos_of_another_split_are_said(tmp_path: Path) -> None:
    photos(tmp_path / "test", *TEN)
    rows = "".join(f"{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(10))
    added = add_dataset(table(tmp_path / "train.csv", "image,label\n" + rows), "mine")
    assert "the photos of train.csv were found in 'test' only" in added.remarks


# --- a manifest that an edit has damaged ---


@pytest.mark.parametrize("damage", [b"\nclasses: [unclosed\n", "\n# café\n".encode("latin-1")])
def test_a_damaged_manifest_is_named_and_not_passed_over(tmp_path: Path, damage: bytes) -> None:
    for name in ("cat", "dog"):
        photos(tmp_path / "photos" / name, *TEN)
    find_or_add(tmp_path / "photos")
    file = tmp_path / "home" / "datasets" / "photos.yaml"
    whole = file.read_bytes()
    for place in (file, file.with_name("birds.yaml")):  # called like the photos, or naming them
        file.unlink(missing_ok=True)
        place.write_bytes(whole + damage)
        with pytest.raises(UserError, match=rf"{place.name} is not valid YAML") as caught:
            find_or_add(tmp_path / "photos")
        assert "\n" not in str(caught.value)
        assert [path.name for path in file.parent.glob("*.yaml")] == [place.name]
    file.with_name("birds.yaml").write_bytes(b"[of other photos")
    find_or_add(tmp_path / "photos")


# --- several labels in one cell ---


@pytest.mark.parametrize(
    ("cells", "joined"),
    [
        (["cat", "\"['cat', 'dog']\"", "dog"], "cat, dog"),
        (["cat", '"[""cat"", ""dog""]"', "dog"], "cat, dog"),
        (["cat", "['cat' 'dog']", "dog"], "cat, dog"),
        (["cat", '"[cat, bird]"', "dog"], "cat, bird"),
        (["cat", "\"('cat', 'dog')\"", "dog"], "cat, dog"),
        (["cat", "cat;dog", "dog"], "cat, dog"),
        (["cat", "Cat | dog", "dog"], "Cat, dog"),
        (["cat", '"cat, dog"', "dog"], "cat, dog"),
        (["cat;dog", "cat;bird", "dog;bird"], "cat, dog"),
    ],
)
def test_cells_that_are_lists_are_several_labels(
    tmp_path: Path, cells: list[str], joined: str
) -> None:
    photos(tmp_path, *TEN[:3])
    rows = "".join(f"{i}.png,{cell}\n" for i, cell in enumerate(cells))
    with pytest.raises(UserError, match=rf"more than one label \(first .*: {joined}\)"):
        add_dataset(table(tmp_path / "t.csv", "image,label\n" + rows), "mine")


def test_names_with_bars_and_brackets_are_names(tmp_path: Path) -> None:
    cells = ["animal;cat", "animal;dog", "animal", "[sic]", "(1980)", "['one']", "{x}", "[]"]
    photos(tmp_path, *TEN)
    rows = "".join(f"{i}.png,{cell}\n" for i, cell in enumerate(cells))
    added = add_dataset(table(tmp_path / "t.csv", "image,label\n" + rows), "mine")
    assert {entry.folder for entry in added.manifest.classes} == {*cells[:5], "one", "{x}"}


# --- exports with several fields ---


def fiftyone(root: Path, *fields: str) -> Path:
    """Samples of which every field names another class: the field and the photo's parity."""
    photos(root / "data", *TEN)
    samples = [
        {"filepath": f"data/{name}"}
        | {f: {"_cls": "Classification", "label": f"{f}{i % 2}"} for f in fields}
        for i, name in enumerate(TEN)
    ]
    return table(root / "samples.json", json.dumps({"samples": samples}))


@pytest.mark.parametrize(
    ("fields", "asked", "taken"),
    [
        (("pred", "gt"), "", "gt"),
        (("clip", "Label"), "", "Label"),
        (("species", "predictions"), "", "species"),
        (("pred", "ground_truth", "gt"), "", "ground_truth"),
        (("anna", "ben"), "ben", "ben"),
        (("pred", "gt"), "pred", "pred"),
        (("pred",), "", "pred"),
    ],
)
def test_fiftyone_takes_what_a_person_said(
    tmp_path: Path, fields: tuple[str, ...], asked: str, taken: str
) -> None:
    fiftyone(tmp_path / "f", *fields)
    added = add_dataset(tmp_path / "f", "mine", hints=Hints(label_column=asked))
    named = taken.replace("_", " ")
    assert added.manifest.class_names == [f"{named}0", f"{named}1"]
    assert set(all_photos(open_dataset("mine")).values()) == {f"{named}0", f"{named}1"}


def test_fiftyone_asks_where_several_fields_remain(tmp_path: Path) -> None:
    fiftyone(tmp_path / "f", "anna", "ben")
    with pytest.raises(UserError, match=r"several fields: anna, ben\. .*--label-column anna"):
        add_dataset(tmp_path / "f", "mine")
    with pytest.raises(UserError, match="no classes in the field 'carl'"):
        add_dataset(tmp_path / "f", "mine", hints=Hints(label_column="carl"))
    assert not list((tmp_path / "home").rglob("*.yaml"))


def test_label_studio_with_two_controls(tmp_path: Path) -> None:
    photos(tmp_path / "l", *TEN)
    results = [
        [
            {"type": "choices", "from_name": "kind", "value": {"choices": ["ab"[i % 2]]}},
            {"type": "choices", "from_name": "mood", "value": {"choices": ["good"]}},
        ]
        for i in range(10)
    ]
    tasks = [
        {"data": {"image": f"{i}.png"}, "annotations": [{"result": some}]}
        for i, some in enumerate(results)
    ]
    file = table(tmp_path / "l" / "export.json", json.dumps(tasks))
    with pytest.raises(UserError, match="more than one label"):
        add_dataset(file, "mine")
    added = add_dataset(file, "mine", hints=Hints(label_column="kind"))
    assert added.manifest.class_names == ["a", "b"]
    assert len(all_photos(open_dataset("mine"))) == 10


# --- folders that mean one thing, or two ---


@pytest.mark.parametrize("twin", ["training", "train_images"])
def test_two_folders_of_one_split_are_refused(tmp_path: Path, twin: str) -> None:
    for split in ("train", twin, "test"):
        for name in ("cat", "dog"):
            photos(tmp_path / "p" / split / name, *TEN[:2])
    with pytest.raises(UserError, match=rf"several folders for its split train: 'train', '{twin}'"):
        add_dataset(tmp_path / "p", "mine")


def test_folds_are_no_classes(tmp_path: Path) -> None:
    for fold in ("fold1", "fold_2", "Fold-3"):
        for name in ("cat", "dog", "hen"):
            if (fold, name) != ("fold_2", "hen"):
                photos(tmp_path / "p" / fold / name, *TEN[:2])
    added = add_dataset(tmp_path / "p", "mine")
    assert added.manifest.class_names == ["cat", "dog", "hen"]
    assert "'Fold-3', 'fold1', 'fold_2' are parts" in " ".join(added.remarks)
    found = all_photos(open_dataset("mine"))
    assert len(found) == 16
    assert all(path.split("/")[1] == name for path, name in found.items())


def test_front_and_back_are_classes_whatever_is_in_them(tmp_path: Path) -> None:
    for name in ("front", "back"):
        for session in ("one", "two"):
            photos(tmp_path / "p" / name / session, *TEN[:2])
    assert add_dataset(tmp_path / "p", "mine").manifest.class_names == ["back", "front"]


def test_names_that_read_the_same_are_one_class_or_kept_apart(tmp_path: Path) -> None:
    folders = ["1.cat", "2.cat", "a_b", "a b", "caf\u00e9", "cafe\u0301", "CAFE\u0301", "dog"]
    for name in folders:
        photos(tmp_path / "p" / name, *TEN[:2])
    added = add_dataset(tmp_path / "p", "mine")
    names = ["1.cat", "2.cat", "CAF\u00c9", "a b", "a_b", "dog"]
    assert added.manifest.class_names == names
    assert len(all_photos(open_dataset("mine"))) == 16
    said = "\n".join(added.remarks)
    assert "'1.cat', '2.cat' would all be called 'cat' and keep these names" in said
    assert "differ in case and the way to write accents alone and are one class" in said
    rows = "".join(f"p/{name}/{i}.png,{name}\n" for name in folders for i in range(2))
    added = add_dataset(table(tmp_path / "t.csv", "path,label\n" + rows), "other")
    assert added.manifest.class_names == names
    assert len(all_photos(open_dataset("other"))) == 16


# --- labels that are not there ---


def parquet(path: Path, label: list, names: list[str] | None = None, **more: list) -> Path:
    contents = [(path.parent / "p" / name).read_bytes() for name in TEN]
    rows = pa.table(
        {"image": [{"bytes": c, "path": None} for c in contents], "label": label} | more
    )
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        rows = rows.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    pq.write_table(rows, path)
    return path


def test_class_labels_without_or_with_equal_names(tmp_path: Path) -> None:
    photos(tmp_path / "p", *TEN)
    file = parquet(tmp_path / "t.parquet", [0, 1] * 5, ["cat", ""])
    with pytest.raises(
        UserError, match=r"t\.parquet has a class without a name, that of the number 1"
    ):
        add_dataset(file, "mine")
    file = parquet(tmp_path / "t.parquet", [0, 1] * 5, ["crane", "crane", "crane (2)"])
    added = add_dataset(file, "mine")
    assert added.manifest.class_names == ["crane", "crane", "crane (2)"]
    folders = [entry.folder for entry in added.manifest.classes]
    assert folders == ["crane", "crane (3)", "crane (2)"]
    assert "several classes are called 'crane'" in " ".join(added.remarks)


@pytest.mark.parametrize("names", [None, ["cat", "dog"]])
def test_labels_that_are_all_null(tmp_path: Path, names: list[str] | None) -> None:
    photos(tmp_path / "p", *TEN)
    null = pa.nulls(10, pa.int64() if names else pa.string())
    file = parquet(tmp_path / "t.parquet", null, names)
    with pytest.raises(UserError, match=r"t\.parquet has only rows without a 'label'\. Fill"):
        add_dataset(file, "mine")
    added = add_dataset(parquet(file, null, names, caption=["words"] * 10), "mine")
    assert (added.manifest.classes, added.manifest.tasks[0]) == ([], "retrieval")
    rows = "".join(f"p/{name},,words\n" for name in TEN)
    added = add_dataset(table(tmp_path / "t.csv", "path,label,caption\n" + rows), "other")
    assert "no row has a 'label': captions alone" in added.remarks


# --- files that are not what they seem ---


def test_boxes_are_no_captions(tmp_path: Path) -> None:
    for name in TEN:
        photos(tmp_path / "flat", name)
        boxes = "0 0.5 0.5 0.25 0.1\n1 0.1 0.2 1e-2 0.3\n"
        table(tmp_path / "flat" / name.replace("png", "txt"), boxes)
    with pytest.raises(UserError, match="hold numbers, as YOLO writes boxes"):
        add_dataset(tmp_path / "flat", "mine")
    for name in ("cat", "dog"):
        (tmp_path / "p").mkdir(exist_ok=True)
        shutil.copytree(tmp_path / "flat", tmp_path / "p" / name)
    added = add_dataset(tmp_path / "p", "mine")
    assert (added.manifest.class_names, added.manifest.tasks) == (
        ["cat", "dog"],
        ["classification"],
    )
    table(tmp_path / "flat" / "0.txt", "7 birds")
    for name in TEN[1:8]:
        table(tmp_path / "flat" / name.replace("png", "txt"), "a bird")
    assert add_dataset(tmp_path / "flat", "words").manifest.tasks[0] == "retrieval"


def test_captions_of_no_image_are_refused_and_ids_of_two_types_match(tmp_path: Path) -> None:
    photos(tmp_path / "c" / "images", *TEN)
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(TEN)],
        "annotations": [{"image_id": 100 + i, "caption": "words"} for i in range(10)],
    }
    file = tmp_path / "c" / "captions.json"
    table(file, json.dumps(content))
    with pytest.raises(UserError, match="captions for none of its 10 images"):
        add_dataset(tmp_path / "c", "mine")
    content["annotations"] = [{"image_id": str(i), "caption": "words"} for i in range(10)]
    table(file, json.dumps(content))
    added = add_dataset(tmp_path / "c", "mine")
    assert sum(some["captions"] for some in added.counts.values()) == 10


@pytest.mark.parametrize("column", ["image", "images", "pictures"])
@pytest.mark.parametrize("bare", [False, True])
def test_several_photos_a_row_are_refused_shortly(tmp_path: Path, column: str, bare: bool) -> None:
    photos(tmp_path / "p", *TEN)
    content = (tmp_path / "p" / "0.png").read_bytes()
    one = content if bare else {"bytes": content, "path": None}
    rows = pa.table({column: [[one, one]] * 4, "label": ["cat", "dog"] * 2})
    pq.write_table(rows, tmp_path / "t.parquet")
    with pytest.raises(UserError, match="several photos a row") as caught:
        add_dataset(tmp_path / "t.parquet", "mine")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("line", ["sep=;", '"SEP=;"', "sep=;\r"])
def test_the_line_by_which_excel_knows_the_delimiter(tmp_path: Path, line: str) -> None:
    photos(tmp_path, *TEN[:2])
    file = table(tmp_path / "t.csv", f"{line}\npath;label\n0.png;a, b\n1.png;c, d\n")
    assert add_dataset(file, "mine").manifest.class_names == ["a, b", "c, d"]


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("gbk", ["猫", "狗", "黑色的马"]),
        ("big5", ["貓", "狗", "黑色的馬"]),
        ("shift_jis", ["ねこ", "イヌ", "黒い馬"]),
        ("euc_kr", ["고양이", "개", "말"]),
        ("cp1251", ["кошка", "собака", "Лошадь"]),
    ],
)
def test_a_table_of_another_encoding_is_refused(
    tmp_path: Path, encoding: str, names: list[str]
) -> None:
    photos(tmp_path, *TEN[:3])
    text = "path,label\n" + "".join(f"{i}.png,{name}\n" for i, name in enumerate(names))
    with pytest.raises(UserError, match=r"neither UTF-8 nor Western text.*Save it as UTF-8"):
        add_dataset(table(tmp_path / "t.csv", text.encode(encoding)), "mine")
    assert add_dataset(table(tmp_path / "t.csv", text), "mine").manifest.class_names == sorted(
        names
    )


@pytest.mark.parametrize(
    "names",
    [
        ["pääskynen", "yö", "töyhtöhyyppä"],
        ["Größe", "ÄÖ", "Öl"],
        ["hæð", "bæði", "það"],
        ["œuf", "« naïf »", "5 €", "café–crème"],
        ["ação", "corações", "maçã"],
    ],
)
def test_western_names_are_read(tmp_path: Path, names: list[str]) -> None:
    photos(tmp_path, *TEN)
    text = "path,label\n" + "".join(f"{i}.png,{name}\n" for i, name in enumerate(names))
    added = add_dataset(table(tmp_path / "t.csv", text.encode("cp1252")), "mine")
    assert set(added.manifest.class_names) == set(names)

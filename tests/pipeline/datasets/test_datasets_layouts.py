"""Every layout that people have on disk, in miniature, and files that are not what they seem."""

from __future__ import annotations

import csv
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aape.pipeline.datasets import Dataset, Manifest, load_manifest, open_dataset
from aape.pipeline.errors import UserError


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AAPE_DATA", raising=False)


def image(path: Path, shade: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # by its path: copies of one picture would all be put into one split
    own = zlib.crc32(os.fsencode(path)).to_bytes(4, "big")[:3]
    colour = tuple(own) if shade is None else (shade, 128, 255 - shade)
    Image.new("RGB", (4, 4), colour).save(path)
    return path


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def manifest(layout: dict[str, Any], classes: list[Any] | None = None, **more: Any) -> Manifest:
    tasks = ["classification"] if classes else ["captioning"]
    values = {"name": "tiny", "title": "tiny", "tasks": tasks, "licence": "CC0"}
    return Manifest.model_validate(values | {"layouts": [layout], "classes": classes or []} | more)


def labels(dataset: Dataset, split: Any) -> dict[str, int]:
    return {item.path.name: item.label for item in dataset.items(split)}


@pytest.mark.parametrize("folder", ["cars_train", "cars_train/cars_train"])
def test_coop_split_finds_images_in_plain_and_kaggle_folders(tmp_path: Path, folder: str) -> None:
    image(tmp_path / folder / "1.jpg")
    rows = {"train": [["cars_train/1.jpg", 13, "2012 Audi TTS Coupe"]], "val": [], "test": []}
    write(tmp_path / "split_zhou_StanfordCars.json", rows)
    dataset = open_dataset("cars", tmp_path)
    assert dataset.layout.title == "CoOp"
    assert dataset.items("train")[0].path == tmp_path / folder / "1.jpg"
    assert dataset.items("train")[0].label == 13
    with pytest.raises(UserError, match="no labelled images in its test split"):
        dataset.items("test")


def test_coop_split_with_too_many_classes_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "split_zhou_OxfordPets.json", {"train": [["a.jpg", 37, "dodo"]]})
    with pytest.raises(UserError, match=r"has class 37, but 'pets' has\s37 classes"):
        open_dataset("pets", tmp_path).items("train")


@pytest.mark.parametrize("content", ["[]", '{"train": [["a.jpg"]]}', '{"train": 3}', "{"])
def test_broken_split_file_is_named(tmp_path: Path, content: str) -> None:
    write(tmp_path / "split_zhou_OxfordPets.json", content)
    with pytest.raises(UserError, match=r"split_zhou_OxfordPets\.json"):
        open_dataset("pets", tmp_path).items("train")


def test_root_may_be_the_parent_of_the_usual_folder(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path / "oxford_pets" / "split_zhou_OxfordPets.json", {"train": [["a.jpg", 0, "x"]]})
    assert open_dataset("pets", tmp_path).root == tmp_path / "oxford_pets"
    monkeypatch.setenv("AAPE_DATA", str(tmp_path))
    assert open_dataset("pets").root == tmp_path / "oxford_pets"


def test_aircraft_lists_name_the_variant_after_the_image(tmp_path: Path) -> None:
    for split, text in {"train": "0034309 Boeing 717", "val": "1 F/A-18", "test": "2 A380"}.items():
        write(tmp_path / "data" / f"images_variant_{split}.txt", text + "\n")
    image(tmp_path / "data" / "images" / "0034309.jpg")
    dataset = open_dataset("aircraft", tmp_path)
    item = dataset.items("train")[0]
    assert (dataset.class_names[item.label], item.path.exists()) == ("Boeing 717", True)
    assert dataset.class_names[dataset.items("val")[0].label] == "F/A-18"


def test_food_and_pets_lists_as_torchvision_leaves_them(tmp_path: Path) -> None:
    write(tmp_path / "food" / "meta" / "train.txt", "apple_pie/1\nwaffles/2\n")
    write(tmp_path / "food" / "meta" / "test.txt", "waffles/3\n")
    food = open_dataset("food101", tmp_path / "food")
    assert labels(food, "train") == {"1.jpg": 0, "2.jpg": 100}
    assert food.items("train")[0].path == tmp_path / "food" / "images" / "apple_pie" / "1.jpg"
    write(tmp_path / "pets" / "annotations" / "trainval.txt", "Abyssinian_100 1 1 1\n")
    write(tmp_path / "pets" / "annotations" / "test.txt", "american_bulldog_2 2 2 1\n")
    pets = open_dataset("pets", tmp_path / "pets")
    assert labels(pets, "train") == {"Abyssinian_100.jpg": 0}
    assert labels(pets, "test") == {"american_bulldog_2.jpg": 1}


def test_sun_lists_name_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "Training_01.txt", "/a/apartment_building/outdoor/sun_x.jpg\n")
    write(tmp_path / "Testing_01.txt", "/a/abbey/sun_y.jpg\n")
    image(tmp_path / "SUN397" / "a" / "apartment_building" / "outdoor" / "sun_x.jpg")
    dataset = open_dataset("sun397", tmp_path)
    item = dataset.items("train")[0]
    assert (dataset.class_names[item.label], item.path.exists()) == (
        "outdoor apartment building",
        True,
    )


def test_list_with_an_unknown_class_is_an_error(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path / f"images_variant_{split}.txt", "1 Zeppelin\n")
    with pytest.raises(UserError, match="names 'Zeppelin', no class of 'aircraft'"):
        open_dataset("aircraft", tmp_path).items("train")


def test_cub_keeps_the_published_test_split_and_makes_val(tmp_path: Path) -> None:
    base = tmp_path / "CUB_200_2011"
    paths = [f"001.Black_footed_Albatross/{i}.jpg" for i in range(10)] + ["002.Laysan/a.jpg"]
    write(base / "images.txt", "".join(f"{i} {p}\n" for i, p in enumerate(paths, 1)))
    write(
        base / "image_class_labels.txt",
        "".join(f"{i} {1 + (i == 11)}\n" for i in range(1, 12)),
    )
    write(base / "train_test_split.txt", "".join(f"{i} {int(i <= 10)}\n" for i in range(1, 12)))
    dataset = open_dataset("cub", tmp_path)
    assert (len(dataset.items("train")), len(dataset.items("val"))) == (8, 2)
    assert labels(dataset, "test") == {"a.jpg": 1}
    assert "own deterministic split" in dataset.split_note
    write(base / "train_test_split.txt", "1 1\n")
    with pytest.raises(UserError, match="do not agree"):
        open_dataset("cub", tmp_path).items("train")


def test_matlab_labels_of_flowers_and_cars(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    flowers = tmp_path / "flowers"
    (flowers / "jpg").mkdir(parents=True)
    scipy_io.savemat(flowers / "imagelabels.mat", {"labels": [[77, 77, 1]]})
    scipy_io.savemat(flowers / "setid.mat", {"trnid": [[3]], "valid": [[1]], "tstid": [[2]]})
    dataset = open_dataset("flowers", flowers)
    assert labels(dataset, "train") == {"image_00003.jpg": 0}
    assert dataset.class_names[dataset.items("test")[0].label] == "passion flower"
    import numpy as np

    rows = np.array([[("00001.jpg", 14)]], dtype=[("fname", object), ("class", object)])
    cars = tmp_path / "cars"
    (cars / "devkit").mkdir(parents=True)
    scipy_io.savemat(cars / "devkit" / "cars_train_annos.mat", {"annotations": rows})
    scipy_io.savemat(cars / "cars_test_annos_withlabels.mat", {"annotations": rows})
    dataset = open_dataset("cars", cars)
    assert dataset.layout.title == "torchvision"
    assert dataset.class_names[dataset.items("test")[0].label] == "2012 Audi TTS Coupe"
    write(cars / "cars_test_annos_withlabels.mat", "no matrix")
    with pytest.raises(UserError, match="not a MATLAB file"):
        open_dataset("cars", cars).items("test")


def test_kaggle_cars_folders_have_the_year_last(tmp_path: Path) -> None:
    base = tmp_path / "car_data" / "car_data"
    for i in range(5):
        image(base / "train" / "Ram C-V Cargo Van Minivan 2012" / f"{i}.jpg")
    image(base / "test" / "AM General Hummer SUV 2000" / "t.jpg")
    dataset = open_dataset("cars", tmp_path)
    names = {dataset.class_names[item.label] for item in dataset.items("train")}
    assert names == {"2012 Ram C/V Cargo Van Minivan"}
    assert len(dataset.items("val")) == 1
    assert labels(dataset, "test") == {"t.jpg": 0}


def test_imagenet_folders_by_wordnet_id_and_its_variants_by_number(tmp_path: Path) -> None:
    image(tmp_path / "imagenet" / "images" / "train" / "n01443537" / "a.JPEG")
    image(tmp_path / "imagenet" / "images" / "val" / "n01440764" / "b.JPEG")
    write(tmp_path / "imagenet" / "images" / "train" / "n01443537" / "notes.txt", "no image")
    imagenet = open_dataset("imagenet", tmp_path / "imagenet")
    assert labels(imagenet, "train") == {"a.JPEG": 1}
    assert labels(imagenet, "test") == {"b.JPEG": 0}
    image(tmp_path / "v2" / "imagenetv2-matched-frequency-format-val" / "999" / "c.jpeg")
    assert labels(open_dataset("imagenet-v2", tmp_path / "v2"), "test") == {"c.jpeg": 999}
    image(tmp_path / "a" / "imagenet-a" / "n01498041" / "d.jpg")
    assert labels(open_dataset("imagenet-a", tmp_path / "a"), "test") == {"d.jpg": 0}


def test_folder_that_is_no_class_is_an_error_unless_ignored(tmp_path: Path) -> None:
    for name in ("face", "BACKGROUND_Google", "cup"):
        image(tmp_path / "101_ObjectCategories" / name / "1.jpg")
    dataset = open_dataset("caltech101", tmp_path)
    assert {i.label for s in ("train",) for i in dataset.items(s)} == {0, 29}
    image(tmp_path / "101_ObjectCategories" / "zeppelin" / "1.jpg")
    with pytest.raises(UserError, match="'zeppelin'"):
        open_dataset("caltech101", tmp_path).items("train")


def test_own_split_is_the_same_wherever_the_folder_lies(tmp_path: Path) -> None:
    splits = []
    for place in ("here", "there"):
        for i in range(20):
            image(tmp_path / place / "2750" / "Forest" / f"{i}.jpg")
        dataset = open_dataset("eurosat", tmp_path / place)
        splits.append([sorted(labels(dataset, s)) for s in ("train", "val", "test")])
    assert splits[0] == splits[1]
    assert [len(names) for names in splits[0]] == [10, 4, 6]
    assert dataset.split_note == "own deterministic split"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "jsonl"])
def test_table_of_paths_and_labels(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"path": "a.png", "label": 'say "cheese"\nplease', "split": "train"},
        {"path": "b.png", "label": "עברית 🙂", "split": "test"},
        {"path": "c.png", "label": "1", "split": "validation"},
    ]
    file = tmp_path / f"table.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif suffix == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(
                stream, list(rows[0]), delimiter="\t" if suffix == "tsv" else ","
            )
            writer.writeheader()
            writer.writerows(rows)
    layout = {"kind": "table", "files": [file.name], "split": "split"}
    dataset = open_dataset(manifest(layout, [rows[0]["label"], rows[1]["label"]]), tmp_path)
    assert labels(dataset, "train") == {"a.png": 0}
    assert labels(dataset, "test") == {"b.png": 1}
    assert labels(dataset, "val") == {"c.png": 1}, "a number that is no name is a class id"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,x\n", "no column 'path'"),
        ("path,label,split\na.png,y,train\n", "label 'y'"),
        ("path,label,split\na.png,x,later\n", "split 'later'"),
        ("path,label,split\n,x,train\n", "without a 'path'"),
        ("", "t.csv is empty"),
    ],
)
def test_bad_table_is_named_with_its_fault(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "t.csv", text)
    layout = {"kind": "table", "files": ["t.csv"], "split": "split" if "split" in text else ""}
    with pytest.raises(UserError, match=message) as caught:
        open_dataset(manifest(layout, ["x"]), tmp_path).items("train")
    assert "t.csv" in str(caught.value)


def test_coco_annotations_of_either_release(test_data: Path, tmp_path: Path) -> None:
    coco = open_dataset("coco", test_data / "coco_mini")
    for split, n in (("train", 80), ("test", 79)):
        captioned = coco.captions(split)
        assert len(captioned) == n
        assert all(image.path.is_file() for image in captioned)
        assert all(len(image.captions) == 5 for image in captioned)
    content = {
        "images": [
            {"id": 7, "file_name": "COCO_val2014_000000000007.jpg"},
            {"id": 8, "file_name": "x"},
        ],
        "annotations": [{"image_id": 7, "caption": "a cat"}],
    }
    write(tmp_path / "annotations" / "captions_val2014.json", content)
    image(tmp_path / "val2014" / "COCO_val2014_000000000007.jpg")
    only = open_dataset("coco", tmp_path).captions("test")
    assert [(image.image_id, image.captions, image.path.exists()) for image in only] == [
        ("7", ("a cat",), True)
    ]


def test_karpathy_counts_restval_as_training(tmp_path: Path) -> None:
    rows = [
        {
            "filename": f"{split}.jpg",
            "filepath": "val2014",
            "split": split,
            "imgid": i,
            "cocoid": 10 + i,
            "sentences": [{"raw": "one "}, {"raw": "two"}],
        }
        for i, split in enumerate(["train", "restval", "val", "test"])
    ]
    write(tmp_path / "dataset_coco.json", {"images": rows})
    image(tmp_path / "images" / "val2014" / "train.jpg")
    dataset = open_dataset("coco", tmp_path)
    assert [captioned.image_id for captioned in dataset.captions("train")] == ["10", "11"]
    assert dataset.captions("test")[0].captions == ("one", "two")
    assert dataset.captions("train")[0].path.is_file()
    flickr = [{k: v for k, v in row.items() if k not in ("filepath", "cocoid")} for row in rows[:1]]
    write(tmp_path / "f" / "dataset_flickr30k.json", {"images": flickr})
    image(tmp_path / "f" / "flickr30k-images" / "train.jpg")
    assert open_dataset("flickr30k", tmp_path / "f").captions("train")[0].path.is_file()


def test_nocaps_has_domains_and_open_images_names(tmp_path: Path) -> None:
    content = {
        "images": [
            {
                "id": 0,
                "open_images_id": "0013ea2087020901",
                "file_name": "x",
                "domain": "near-domain",
            }
        ],
        "annotations": [{"image_id": 0, "caption": c} for c in ("a", "b")],
    }
    write(tmp_path / "nocaps_val_4500_captions.json", content)
    path = image(tmp_path / "validation" / "0013ea2087020901.jpg")
    captioned = open_dataset("nocaps", tmp_path).captions("test")[0]
    assert (captioned.path, captioned.domain, captioned.captions) == (
        path,
        "near-domain",
        ("a", "b"),
    )


def test_vqa_files_give_ten_answers_in_order(tmp_path: Path) -> None:
    question = {"question_id": 1, "image_id": 42, "question": "what is it?"}
    answers = [{"answer": f"a{i}", "answer_confidence": "yes", "answer_id": i} for i in range(10)]
    annotation = {
        "question_id": 1,
        "image_id": 42,
        "question_type": "what is",
        "answer_type": "other",
        "answers": answers,
    }
    write(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": [question]})
    write(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": [annotation]})
    path = image(tmp_path / "val2014" / "COCO_val2014_000000000042.jpg")
    asked = open_dataset("vqav2", tmp_path).questions("test")[0]
    assert asked.answers == tuple(f"a{i}" for i in range(10))
    assert (asked.path, asked.question_type, asked.answer_type) == (path, "what is", "other")
    write(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": []})
    with pytest.raises(UserError, match="lacks question 1"):
        open_dataset("vqav2", tmp_path).questions("test")


def test_daquar_tables(test_data: Path) -> None:
    daquar = open_dataset("daquar", test_data / "daquar")
    asked = daquar.questions("test")[0]
    assert asked.answers == ("garbage_bin",)
    assert asked.question_type == "what is"
    for split in ("train", "test"):
        assert all(question.path.is_file() for question in daquar.questions(split))


def test_sugarcrepe_reads_the_categories_that_are_there(tmp_path: Path) -> None:
    rows = {"0": {"filename": "1.jpg", "caption": "a dog", "negative_caption": "a red dog"}}
    write(tmp_path / "data" / "add_att.json", rows)
    image(tmp_path / "val2017" / "1.jpg")
    (contrast,) = open_dataset("sugarcrepe", tmp_path).contrasts("test")
    assert (contrast.caption, contrast.negative_caption) == ("a dog", "a red dog")
    assert (contrast.category, contrast.path.is_file()) == ("add_att", True)


def test_captioned_folders_give_the_deepest_class(tmp_path: Path) -> None:
    for name in ("animals/mammals/cow", "animals/mammals/bovines/ox", "space/star"):
        image(tmp_path / f"{name}.png")
        write(tmp_path / f"{name}.txt", f"A {Path(name).name}.\nde.utf8=etwas\n")
    image(tmp_path / "animals" / "nameless.png")
    dataset = open_dataset(load_manifest("stamps"), tmp_path)
    contents = dataset.contents
    names = {
        item.path.stem: dataset.class_names[item.label]
        for items in contents.items.values()
        for item in items
    }
    assert names == {"cow": "mammal", "ox": "bovine animal"}
    captions = {c.captions[0] for some in contents.captions.values() for c in some}
    assert captions == {"A cow.", "A ox.", "A star."}
    assert contents.remarks == ("1 image without a caption was left out",)
    for split, items in contents.items.items():
        assert {i.path for i in items} <= {c.path for c in contents.captions[split]}


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("coco", "annotations/captions_train2017.json", "COCO's format"),
        ("coco", "dataset_coco.json", "Karpathy"),
        ("nocaps", "nocaps_val_4500_captions.json", "COCO's format"),
        ("vqav2", "v2_OpenEnded_mscoco_train2014_questions.json", "vqa|VQA|annotations"),
        ("sugarcrepe", "data/add_att.json", "SugarCrepe"),
    ],
)
@pytest.mark.parametrize("content", ["[1]", '{"images": [1], "annotations": [2]}', "\x00"])
def test_file_of_another_format_is_named(
    tmp_path: Path, name: str, file: str, message: str, content: str
) -> None:
    write(tmp_path / file, content)
    with pytest.raises(UserError, match=f"{message}|not valid JSON") as caught:
        _ = open_dataset(name, tmp_path).contents
    assert str(tmp_path) in str(caught.value)


def test_root_in_no_known_layout_says_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not in a layout known for 'pets' \(CoOp, torchvision\)"):
        open_dataset("pets", tmp_path)
    with pytest.raises(UserError, match=r"not here.*AAPE_DATA"):
        open_dataset("pets")


@pytest.mark.parametrize("captioned", [False, True])
def test_hugging_face_parquet_with_image_bytes(tmp_path: Path, captioned: bool) -> None:
    rows = []
    for i in range(10):
        content = image(tmp_path / "raw" / f"{i}.png", i).read_bytes()
        rows.append(
            {"image": {"bytes": content, "path": f"{i}.png"}, "label": i % 2, "text": f"t{i}"}
        )
    table = pa.Table.from_pylist(rows)
    features = {"info": {"features": {"label": {"names": ["1", "0"], "_type": "ClassLabel"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "train-00000-of-00001.parquet")
    layout = {
        "kind": "hugging_face",
        "files": {"train": ["data/train-00000-of-00001.parquet"]},
        "label_ids": True,
        "caption": "text" if captioned else "",
    }
    dataset = open_dataset(manifest(layout, ["1", "0"]), tmp_path)
    sizes = [len(dataset.items(split)) for split in ("train", "val", "test")]
    assert sizes == [4, 2, 4]
    assert dataset.split_note == "own deterministic split"
    for item in dataset.items("train"):
        with Image.open(item.path) as opened:
            assert opened.size == (4, 4)
            assert opened.getpixel((0, 0))[0] % 2 == item.label, "the id decides, not the name"
    if captioned:
        assert len(dataset.captions("train")) == 4
    again = open_dataset(manifest(layout, ["1", "0"]), tmp_path)
    assert again.items("test") == dataset.items("test")

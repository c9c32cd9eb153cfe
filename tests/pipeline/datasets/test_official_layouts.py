"""All that the paper reads, laid out as its official downloads lie: every layout is read whole."""

from __future__ import annotations

import json
from pathlib import Path

import captioned_sets
import labelled_sets
import pytest
from drawn_pictures import Pictures

from aape.pipeline.datasets import load_manifest, open_dataset
from aape.pipeline.datasets.check import absent_files

SETS = [name for name in labelled_sets.WRITERS if name != "imagenet"]
VARIANTS = ["imagenet-v2", "imagenet-sketch", "imagenet-a", "imagenet-r"]
# published lists of the five whose split file is in the real test data
SPLITS = {
    "cars": "StanfordCars",
    "dtd": "DescribableTextures",
    "eurosat": "EuroSAT",
    "flowers": "OxfordFlowers",
    "pets": "OxfordPets",
}


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AAPE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def write(data: Path, name: str, counts: labelled_sets.Counts | None = None) -> None:
    labelled_sets.WRITERS[name](data, Pictures(3), counts or labelled_sets.Counts(1, 1, 1))


def check_whole(name: str, layout: str, splits: dict[str, int]) -> None:
    """Every class once in each split, under its own number, and every file there."""
    dataset = open_dataset(name)
    assert dataset.layout.title == layout
    classes = len(load_manifest(name).classes)
    for split, each in splits.items():
        items = dataset.items(split)  # type: ignore[arg-type]
        assert sorted(item.label for item in items) == sorted(list(range(classes)) * each)
        assert not absent_files([item.path for item in items])


@pytest.mark.parametrize("name", SETS)
def test_a_data_set_of_the_paper_in_the_layout_of_coop(name, data):
    write(data, name)
    check_whole(name, "CoOp", {"train": 1, "val": 1, "test": 1})


# without CoOp's split file the original lists, MATLAB files or folders are read
@pytest.mark.parametrize(
    ("name", "layout", "splits"),
    [
        ("cars", "torchvision", {"test": 1}),
        ("flowers", "torchvision", {"train": 1, "val": 1, "test": 1}),
        ("food101", "torchvision", {"test": 1}),
        ("sun397", "original lists", {"test": 1}),
        ("dtd", "original lists, partition 1", {"train": 1, "val": 1, "test": 1}),
        ("pets", "torchvision", {"test": 1}),
        ("caltech101", "original folders", {"test": 1}),
        ("eurosat", "torchvision", {"test": 1}),
        ("ucf101", "middle frames", {"test": 1}),
    ],
)
def test_a_data_set_without_coops_split_file(name, layout, splits, data):
    write(data, name)
    for file in data.glob("*/split_zhou_*.json"):
        file.unlink()
    check_whole(name, layout, splits)


@pytest.mark.slow
def test_imagenet_and_its_variants(data):
    write(data, "imagenet")
    labelled_sets.imagenet_variants(data, Pictures(3), labelled_sets.Counts())
    check_whole("imagenet", "CoOp", {"train": 1, "test": 1})
    for name in VARIANTS:
        check_whole(name, "CoOp", {"test": 1})


@pytest.mark.parametrize("name", SPLITS)
def test_names_and_labels_are_those_of_coops_own_split_file(name, data, test_data):
    file = SPLITS[name]
    theirs = json.loads((test_data / "coop_splits" / f"split_zhou_{file}.json").read_text())
    write(data, name)
    mine = json.loads(next(data.glob("*/split_zhou_*.json")).read_text())

    def classes(rows: dict) -> set[tuple[int, str]]:
        return {(label, title) for some in rows.values() for _, label, title in some}

    assert classes(mine) == classes(theirs)
    # the depth of the paths and what they end in
    assert {path.count("/") for path, _, _ in mine["train"]} == {
        path.count("/") for path, _, _ in theirs["train"]
    }


def test_captions_and_questions_in_their_official_files(data):
    sizes = captioned_sets.Sizes(6, 2, 3)
    for write_set in captioned_sets.WRITERS.values():
        write_set(data, Pictures(4), sizes)
    for name in ("coco", "flickr30k"):
        dataset = open_dataset(name)
        assert dataset.layout.title == "Karpathy split"
        assert [len(dataset.captions(part)) for part in ("train", "val", "test")] == [6, 2, 3]
        images = dataset.captions("train")
        assert {len(image.captions) for image in images} == {5}
        assert not absent_files([image.path for image in images])
    images = open_dataset("nocaps").captions("test")
    assert {len(image.captions) for image in images} == {10}
    assert {image.domain for image in images} == {"in-domain", "near-domain", "out-domain"}
    assert not absent_files([image.path for image in images])
    questions = open_dataset("vqav2").questions("test")
    assert {len(question.answers) for question in questions} == {10}
    assert not absent_files([question.path for question in questions])
    (data / "coco" / "dataset_coco.json").unlink()
    assert open_dataset("coco").layout.title == "COCO 2014"

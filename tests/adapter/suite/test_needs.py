"""What a suite says before it computes anything: what is missing, where to get it, how long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from random_bank import metadata, rows

import aape as public
from aape.adapter.config import EvaluationConfig
from aape.adapter.suite.costs import DatasetWork, Rates, suite_work
from aape.adapter.suite.needs import suite_needs
from aape.adapter.suite.plan import SUITES, Job, Suite
from aape.adapter.suite.run import _check_described, _Work, run_suite
from aape.pipeline.bank import write_bank
from aape.pipeline.config import EncoderConfig, GenerationConfig
from aape.pipeline.datasets import load_manifest
from aape.pipeline.errors import UserError

LITE = EncoderConfig(name="lite")


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """An empty data root."""
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AAPE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def small_pets(data: Path, split: str = "split_zhou_OxfordPets.json") -> Path:
    """Oxford Pets with one image a class and split, as CoOp lays it out."""
    root = data / "oxford_pets"
    (root / "images").mkdir(parents=True)
    rows: dict[str, list] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(load_manifest("pets").class_names):
        for number, part in enumerate(rows):
            file = f"{name.replace(' ', '_')}_{number}.jpg"
            Image.new("RGB", (8, 8), (label, number, 7)).save(root / "images" / file)
            rows[part].append([file, label, name])
    (root / split).write_text(json.dumps(rows))
    return root


def pets_suite(**fields) -> Suite:
    return Suite(name="one", title="one", jobs=[Job(dataset="pets", **fields)], encoder=LITE)


def test_on_an_empty_machine_every_data_set_of_the_paper_is_missing_with_a_place_and_terms(data):
    found = suite_needs(SUITES["paper"])
    sets = [need for need in found.needs if need.kind == "data set"]
    assert not found.complete
    assert len(sets) == 11 + 4 + 4  # eleven, ImageNet's variants, COCO, Flickr30k, nocaps, VQA v2
    for need in sets:
        assert need.missing
        assert need.get
        assert need.licence
    assert [need.kind for need in found.needs[len(sets) :]] == ["encoder", "language model"]
    said = "\n".join(found.lines())
    assert "split_zhou_OxfordPets.json" in said
    assert "CC BY-SA 4.0" in said
    assert json.loads(json.dumps(found.as_dict()))["needs"][0]["name"] == "imagenet"


def test_the_command_computes_nothing_and_says_by_its_status_that_something_is_missing(
    aape, data, tmp_path
):
    done = aape("eval", "all", "--suite", "paper", "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert not (tmp_path / "runs").exists()
    answer = json.loads(done.stdout)
    assert answer["complete"] is False
    assert {"url", "file", "size", "sha256"} <= answer["needs"][1]["downloads"][0].keys()


def test_a_data_set_that_lacks_photos_is_found_before_the_work_and_named(data, tmp_path):
    root = small_pets(data)
    (root / "images" / "beagle_2.jpg").unlink()
    found = suite_needs(pets_suite())
    assert found.needs[0].missing == [str(root / "images" / "beagle_2.jpg")]
    with pytest.raises(UserError, match=r"is not whole: .*beagle_2\.jpg"):
        run_suite(pets_suite(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_split_that_a_task_reads_and_the_data_set_lacks_is_missing(data):
    root = small_pets(data)
    rows = json.loads((root / "split_zhou_OxfordPets.json").read_text())
    del rows["test"]
    (root / "split_zhou_OxfordPets.json").write_text(json.dumps(rows))
    assert "no labelled images in its test split" in suite_needs(pets_suite()).needs[0].missing[0]


def test_another_split_than_the_published_one_is_said(data):
    root = small_pets(data, split="other.json")
    lists = {"trainval.txt": "Abyssinian_0 1 1 1\n", "test.txt": "Abyssinian_2 1 1 1\n"}
    (root / "annotations").mkdir()
    for file, line in lists.items():
        (root / "annotations" / file).write_text(line)
    Image.new("RGB", (8, 8)).save(root / "images" / "Abyssinian_0.jpg")
    Image.new("RGB", (8, 8)).save(root / "images" / "Abyssinian_2.jpg")
    need = suite_needs(pets_suite()).needs[0]
    assert need.here
    assert "split_zhou_OxfordPets.json is missing" in need.remarks[0]


def test_optional_and_skipped_data_sets_stop_nothing(data):
    small_pets(data)
    jobs = [Job(dataset="pets"), Job(dataset="dtd", optional=True)]
    suite = Suite(name="two", title="two", jobs=jobs, encoder=LITE)
    found = suite_needs(suite)
    assert found.complete
    assert "missing, not needed" in "\n".join(found.lines())


def test_work_is_counted_at_most_and_the_same_photo_once(data):
    small_pets(data)
    evaluation = EvaluationConfig(shots=2, seeds=[1, 2])
    suite = pets_suite(evaluation=evaluation).model_copy(
        update={"generation": GenerationConfig(samples=3)}
    )
    opened = {"pets": public.open_dataset("pets")}
    work = suite_work(suite, [*suite.jobs, *suite.jobs], opened)[0]
    queries = len(load_manifest("pets").queries)
    assert work.images["test images"] == 37
    assert work.images["training images and views"] == 37  # there are no more
    assert work.answers == 37 * queries * 3
    assert work.texts == work.answers + 37 * 8


def test_the_line_of_a_data_set_has_the_time_of_its_images():
    line = DatasetWork("ImageNet", {"test images": 50_000}).line(Rates(0.03, 0.001))
    assert line == "ImageNet: 50,000 test images, about 25 minutes on this device"


def test_a_table_is_not_reused_once_a_photo_was_replaced(data, tmp_path):
    root = small_pets(data)

    def key() -> str:
        work = _Work(pets_suite(), tmp_path / "out", False)
        return work.keys.key(work.jobs[0], "classification")

    before = key()
    assert key() == before
    Image.new("RGB", (8, 8), (9, 9, 9)).save(root / "images" / "beagle_2.jpg")
    assert key() != before


def test_a_recipe_of_a_job_decides_its_key(data, tmp_path):
    small_pets(data)
    other = public.load_recipe("literal")
    keys = set()
    for recipe in (None, other):
        work = _Work(pets_suite(recipe=recipe), tmp_path / "out", False)
        keys.add(work.keys.key(work.jobs[0], "classification"))
    assert len(keys) == 2


def test_classes_without_a_prompt_are_named_before_anything_is_encoded(tmp_path: Path) -> None:
    bank = write_bank(tmp_path / "toy.bank.parquet", rows(30), metadata())
    with pytest.raises(UserError, match="in their bank: 1 of toy: 'no prompts'"):
        _check_described({"toy": bank}, ["toy"])

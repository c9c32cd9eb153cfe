"""The manifests that come with the package, and how a manifest is found and refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml
from places import REPOSITORY

from aape.pipeline.datasets import known_datasets, load_manifest
from aape.pipeline.datasets.add import to_yaml
from aape.pipeline.datasets.catalogue import shipped_manifests
from aape.pipeline.datasets.dataset import READERS
from aape.pipeline.datasets.images import ClassIndex
from aape.pipeline.datasets.manifest import Manifest
from aape.pipeline.errors import UserError
from aape.pipeline.files import read_json

NAMES = sorted(path.stem for path in shipped_manifests().glob("*.yaml"))

# Class counts of the papers; the paper's eleven, the ImageNet variants, CUB.
CLASSES = {
    "imagenet": 1000,
    "caltech101": 100,
    "pets": 37,
    "cars": 196,
    "flowers": 102,
    "food101": 101,
    "aircraft": 100,
    "sun397": 397,
    "dtd": 47,
    "eurosat": 10,
    "ucf101": 101,
    "imagenet-v2": 1000,
    "imagenet-sketch": 1000,
    "imagenet-a": 200,
    "imagenet-r": 200,
    "cub": 200,
    "shapes": 24,
    "clothing": 10,
}

COOP_TITLES = {
    "pets": "OxfordPets",
    "cars": "StanfordCars",
    "flowers": "OxfordFlowers",
    "dtd": "DescribableTextures",
    "eurosat": "EuroSAT",
}


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", NAMES)
def test_manifest_is_valid_and_says_what_one_may_do(name: str) -> None:
    manifest = load_manifest(name)
    assert manifest.name == name
    assert manifest.licence.strip()
    assert manifest.homepage.startswith("https://")
    assert manifest.get or manifest.downloads
    assert all(layout.kind in READERS for layout in manifest.layouts)
    folders = [entry.folder or entry.name for entry in manifest.classes]
    assert len(set(folders)) == len(folders)
    assert not any("_" in entry.name for entry in manifest.classes), "names are for people"
    for template in [*manifest.templates, *manifest.ensemble]:
        assert template.count("{}") == 1
    for query in manifest.queries:
        query.text.format_map(
            {"class": "c", "article": "a", "plural": "cs", "category": "a type of c"}
        )
    if any("{category}" in query.text for query in manifest.queries):
        assert manifest.category


@pytest.mark.parametrize(("name", "n"), CLASSES.items())
def test_number_of_classes_is_the_published_one(name: str, n: int) -> None:
    manifest = load_manifest(name)
    assert len(manifest.classes) == n
    repeated = {name for name, count in Counter(manifest.class_names).items() if count > 1}
    assert repeated == ({"missile", "sunglasses"} if n == 1000 else set())


@pytest.mark.parametrize(("name", "title"), COOP_TITLES.items())
def test_classes_and_sizes_are_those_of_coops_split(test_data: Path, name: str, title: str) -> None:
    splits = read_json(test_data / "coop_splits" / f"split_zhou_{title}.json")
    names = {label: text for rows in splits.values() for _, label, text in rows}
    manifest = load_manifest(name)
    assert manifest.class_names == [names[i].replace("_", " ") for i in range(len(names))]
    assert manifest.expected() == {split: len(rows) for split, rows in splits.items()}


def test_imagenet_variants_share_names_by_folder() -> None:
    full = {entry.folder: entry.name for entry in load_manifest("imagenet").classes}
    assert list(full) == sorted(full)
    assert full["n02012849"] == "crane bird"
    for name in ("imagenet-a", "imagenet-r"):
        some = load_manifest(name).classes
        assert [entry.folder for entry in some] == sorted(entry.folder for entry in some)
        assert all(full[entry.folder] == entry.name for entry in some)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("cupl_style/flower_prompts_full.json", "flowers"),
        ("cupl_style/cars_prompts_full.json", "cars"),
        ("cupl_style/pets_prompts_full.json", "pets"),
        ("cupl_style/food_prompts_full.json", "food101"),
        ("cupl_style/texture_prompts_full.json", "dtd"),
        ("cupl_style/EuroSAT.json", "eurosat"),
        ("hpt_gpt/ImageNet.json", "imagenet"),
    ],
)
def test_names_of_published_descriptions_are_found(test_data: Path, file: str, name: str) -> None:
    manifest = load_manifest(name)
    names = {entry.name for entry in manifest.classes}
    index = ClassIndex(manifest)
    keys = list(read_json(test_data / "descriptions" / file))
    unmatched = [key for key in keys if key not in names and index.find(key) is None]
    assert unmatched == []


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("stanford_cars", "cars"),
        ("OxfordPets", "pets"),
        ("oxford-flowers", "flowers"),
        ("CALTECH-101", "caltech101"),
        ("imagenet_a", "imagenet-a"),
        ("easy-vqa", "shapes"),
        ("fgvc_aircraft", "aircraft"),
    ],
)
def test_aliases_lead_to_the_data_set(asked: str, name: str) -> None:
    assert load_manifest(asked).name == name


def test_no_alias_means_two_data_sets() -> None:
    names: Counter[str] = Counter()
    for name in NAMES:
        manifest = load_manifest(name)
        names.update({alias.casefold() for alias in [name, *manifest.aliases]})
    assert not [name for name, count in names.items() if count > 1]


def test_unknown_name_lists_the_known_and_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'food101'.*Known: aircraft, caltech101") as caught:
        load_manifest("food10")
    assert "Unknown data set" in caught.value.message


def test_user_manifests_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    text = (shipped_manifests() / "clothing.yaml").read_text(encoding="utf-8")
    mine = tmp_path / "home" / "datasets" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text(text.replace("name: clothing", "name: mine", 1), encoding="utf-8")
    assert "mine" in known_datasets()
    assert load_manifest("mine") == load_manifest(mine)
    mine.write_text(mine.read_text().replace("- hat\n", "- sun hat\n"), encoding="utf-8")
    assert "sun hat" in load_manifest("mine").class_names, "an edit counts at once"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence": ""}, "licence"),
        ({"templates": ["a photo"]}, "no {} for the class name"),
        ({"classes": []}, "needs classes"),
        ({"classes": ["a", {"name": "b", "folder": "x"}, {"name": "c", "folder": "x"}]}, "unique"),
        ({"layouts": []}, "layouts"),
        ({"layouts": [{"kind": "magic"}]}, "layouts"),
        ({"queries": [{"id": "a", "text": "b"}, {"id": "a", "text": "c"}]}, "unique"),
        ({"licences": "MIT"}, "licences"),
        ({"classes_from": "pets"}, "both classes and classes_from"),
    ],
)
def test_bad_manifest_is_refused_naming_the_key(tmp_path: Path, change: dict, message: str) -> None:
    values = yaml.safe_load((shipped_manifests() / "clothing.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(values | change), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    assert message in str(caught.value)


def test_hash_follows_names_and_queries_only() -> None:
    manifest = load_manifest("clothing")
    assert manifest.model_copy(update={"notes": "other", "licence": "other"}).hash == manifest.hash
    renamed = manifest.classes[0].model_copy(update={"name": "gown"})
    changed = manifest.model_copy(update={"classes": [renamed, *manifest.classes[1:]]})
    assert changed.hash != manifest.hash


@pytest.mark.parametrize("name", ["cars", "shapes", "coco", "stamps", "sun397"])
def test_yaml_round_trip_keeps_everything(name: str) -> None:
    manifest = load_manifest(name)
    assert Manifest.model_validate(yaml.safe_load(to_yaml(manifest))) == manifest


def test_the_table_in_the_documentation_is_up_to_date() -> None:
    from aape.pipeline.commands.print_datasets import markdown_table

    document = REPOSITORY / "docs" / "datasets.md"
    assert markdown_table() in document.read_text(encoding="utf-8"), (
        "run: python -m aape.pipeline.commands.print_datasets docs/datasets.md"
    )

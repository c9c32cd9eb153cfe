"""Published files: their shapes, and the classes their names mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import FakeEncoder

from aape.pipeline.bank import PromptBank
from aape.pipeline.bank.which import bank_path
from aape.pipeline.config import GenerationConfig
from aape.pipeline.datasets import load_manifest
from aape.pipeline.datasets.manifest import Manifest
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.importing import import_prompts
from aape.pipeline.prompts.published import match_names, read_published
from aape.pipeline.prompts.waffle import make_waffle, waffle_texts


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))


def toy(*classes) -> Manifest:
    return Manifest.parse(
        {
            "name": "toy",
            "title": "Toy",
            "tasks": ["classification"],
            "classes": list(classes),
            "layouts": [{"kind": "image_folders"}],
            "licence": "none",
        },
        "toy",
    )


def write(folder: Path, value) -> Path:
    path = folder / "file.json"
    path.write_text(json.dumps(value))
    return path


_SHAPES = {
    "sentences": ({"hen": ["A hen is brown.", " It is small. "], "owl": ["An owl is grey."]},
                  ["A hen is brown.", "It is small."]),
    "nested": ({"hen": {"look": ["A hen is brown."], "size": "It is small."}, "owl": {}},
               ["A hen is brown.", "It is small."]),
    "sentence": ({"hen": "A hen is brown.", "owl": "An owl is grey."}, ["A hen is brown."]),
    "descriptors": ({"hen": ["red comb", "a small bird", "has two legs", ""], "owl": ["big eyes"]},
                    ["hen, which has red comb", "hen, which is a small bird",
                     "hen, which has two legs"]),
    "structure": (
        {"hen": [{"Entities": ["hen"], "Attributes": ["brown"],
                  "Entity-to-Entity Relationships": [
                      {"entity1": "hen", "relationship": "has", "entity2": "comb"}],
                  "Entity-to-Attribute Relationships": [
                      {"entity": "hen", "relationship": "is", "attribute": "brown"}]}],
         "owl": [{"Entities": [], "Attributes": []}]},
        ["Hen has comb.", "Hen is brown."]),
}  # fmt: skip


@pytest.mark.parametrize("shape", _SHAPES)
def test_shapes(tmp_path: Path, shape: str) -> None:
    value, expected = _SHAPES[shape]
    published = read_published(write(tmp_path, value))
    assert published.format == ("sentences" if shape == "nested" else shape)
    assert published.texts["hen"] == expected


def test_a_method_names_its_format(tmp_path: Path) -> None:
    path = write(tmp_path, {"hen": ["Red comb."]})
    assert read_published(path, "cupl").texts["hen"] == ["Red comb."]
    assert read_published(path, "waffleclip").texts["hen"] == ["hen, which has Red comb."]
    with pytest.raises(UserError, match="Did you mean 'cupl'"):
        read_published(path, "cupel")


@pytest.mark.parametrize("value", [[], {}, {"hen": 3}, {"hen": [1]}, "text", {"hen": [{"a": 1}]}])
def test_other_files_are_refused(tmp_path: Path, value) -> None:
    path = write(tmp_path, value)
    with pytest.raises(UserError):
        read_published(path)


def test_names_match_by_the_strictest_rule() -> None:
    manifest = toy(
        "Shih-Tzu", "2012 Audi TT", "Black-footed Albatross", "Anna Hummingbird",
        "kite (bird of prey)", "pink primrose", {"name": "annual crop", "folder": "AnnualCrop"},
        {"name": "trash can", "aliases": ["ashcan"]}, "café", "missile", "missile",
    )  # fmt: skip
    names = {
        "shih tzu": 0, "Audi TT 2012": 1, "Black footed Albatross": 2, "Annas Hummingbird": 3,
        "kite": 4, "Pink_Primrose": 5, "AnnualCrop": 6, "ashcan": 7, "cafe": 8,
    }  # fmt: skip
    match = match_names([*names, "missile", "zebra"], manifest)
    assert {name: ids[0] for name, ids in match.ids.items() if len(ids) == 1} == names
    assert match.ids["missile"] == [9, 10]
    assert match.unmatched == ["zebra"]
    assert match.missing == []


def test_an_ambiguous_name_matches_nothing() -> None:
    match = match_names(["TT Audi"], toy("Audi TT", "TT. Audi!", "Audi-TTs"))
    assert match.ids["TT Audi"] == [1]  # same letters
    match = match_names(["tt the audi"], toy("Audi TT", "TT of Audi"))
    assert match.unmatched == ["tt the audi"]
    assert match.missing == [0, 1]


def test_an_exact_name_is_not_taken_by_a_looser_one() -> None:
    match = match_names(["crane (bird)", "crane"], toy("crane", "crane bird"))
    assert match.ids == {"crane (bird)": [1], "crane": [0]}


def test_a_bank_of_published_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = toy("hen", "owl", "owl")
    path = write(tmp_path, {"Hen": ["A hen is a brown bird.", "A hen is a brown bird."],
                            "owl": ["An owl is a grey bird. It flies at night."]})  # fmt: skip
    report = import_prompts(path, manifest, tmp_path / "b.parquet", encoder=FakeEncoder())  # pyright: ignore
    assert report.renamed == {"Hen": "hen"}
    assert report.repeated == {"owl": [1, 2]}
    assert report.verdicts == {"kept": 3, "duplicate": 1}
    assert "shared" in report.to_text() or "share" in report.to_text()
    bank = PromptBank.open(tmp_path / "b.parquet")
    assert bank.prompts(0) == ["A hen is a brown bird."]
    # word for word: both sentences
    assert bank.prompts(1) == bank.prompts(2) == ["An owl is a grey bird. It flies at night."]
    assert {row["engine"] for row in bank.table.to_pylist()} == {"import"}
    monkeypatch.chdir(tmp_path)
    assert bank_path() == Path("b.parquet"), "the folder of its answers is no second bank"


def test_unmatched_names_stop_the_import(tmp_path: Path) -> None:
    manifest = toy("hen", "owl")
    path = write(
        tmp_path, {"hen": ["A hen is a brown bird."], "owls and co": ["They are grey birds."]}
    )
    bank = tmp_path / "b.parquet"
    with pytest.raises(UserError, match=r"'owls and co'.*1 classes get no texts: 'owl'.*allow"):
        import_prompts(path, manifest, bank, encoder=FakeEncoder())  # pyright: ignore
    assert not bank.exists()
    report = import_prompts(path, manifest, bank, allow_unmatched=True, encoder=FakeEncoder())  # pyright: ignore
    assert list(report.unmatched) == ["owls and co"]
    assert report.missing == ["owl"]
    assert "owls and co" in report.to_text()
    with pytest.raises(UserError, match="No name"):
        import_prompts(path, toy("cat"), bank.with_name("c.parquet"), allow_unmatched=True)


@pytest.mark.parametrize(
    ("file", "dataset", "names", "texts"),
    [
        ("cupl_style/cars_prompts_full.json", "cars", 196, 17640),
        ("cupl_style/pets_prompts_full.json", "pets", 37, 740),
        ("cupl_style/flower_prompts_full.json", "flowers", 102, 2040),
        ("cupl_style/food_prompts_full.json", "food101", 101, 3030),
        ("cupl_style/texture_prompts_full.json", "dtd", 47, 2820),
        ("cupl_style/EuroSAT.json", "eurosat", 10, 250),
        ("hpt_gpt/ImageNet.json", "imagenet", 998, 4990),
    ],
)
def test_published_files_fit_their_data_sets(
    test_data: Path, file: str, dataset: str, names: int, texts: int
) -> None:
    published = read_published(test_data / "descriptions" / file)
    manifest = load_manifest(dataset)
    match = match_names(published.texts, manifest)
    assert len(published.texts) == names
    assert sum(map(len, published.texts.values())) == texts
    assert match.unmatched == []
    assert match.missing == []
    if dataset == "imagenet":
        shared = {name: ids for name, ids in match.ids.items() if len(ids) > 1}
        assert len(shared) == 2
        assert all(len({manifest.class_names[i] for i in ids}) == 1 for ids in shared.values())


def test_word_order_of_cars(test_data: Path) -> None:
    """CoOp writes "2012 Audi TT", others "Audi TT 2012": all 196 are found."""
    path = test_data / "descriptions" / "cupl_style" / "cars_prompts_full.json"
    turned = {}
    for name in json.loads(path.read_text()):
        year, rest = name.split(" ", 1)
        turned[f"{rest} {year}"] = name
    manifest = toy(*load_manifest("cars").class_names)  # without the aliases, by the rules alone
    match = match_names(turned, manifest)
    assert {n: manifest.class_names[i[0]] for n, i in match.ids.items()} == turned
    assert set(match.how.values()) == {"same words"}


def test_birds_of_another_list_are_reported(test_data: Path) -> None:
    published = read_published(test_data / "descriptions/cupl_style/bird_prompts_full.json")
    match = match_names(published.texts, load_manifest("cub"))
    assert len(match.unmatched) == 350
    assert len(match.missing) == 50


def test_waffle_banks_know_nothing(tmp_path: Path) -> None:
    manifest, config = toy("hen", "owl {class}"), GenerationConfig(samples=3)
    bank = make_waffle(manifest, tmp_path / "w.parquet", config, encoder=FakeEncoder())  # pyright: ignore
    opened = PromptBank.open(bank)
    hen, owl = opened.prompts(0), opened.prompts(1)
    assert len(hen) == len(owl) == 15
    assert sorted(t.replace("hen", "@") for t in hen) == sorted(
        t.replace("owl {class}", "@") for t in owl
    )
    assert waffle_texts(15, 0) == waffle_texts(30, 0)[:15]
    assert waffle_texts(15, 0) != waffle_texts(15, 1)

"""Explanations: numbers add up, sentences are the right ones, nothing is taken on trust."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import FakeEncoder
from safetensors.numpy import load_file, save_file

from aape.adapter.bank_of_run import bank_of_run
from aape.adapter.classification.run import run_classification
from aape.adapter.compare import compare
from aape.adapter.config import Config
from aape.adapter.explain import explain, training_photos
from aape.adapter.explain.classes import (
    ClassExplanation,
    explain_class_of,
    sentence_effects,
    shared_sentences,
)
from aape.adapter.explain.opened import Sentences, _classes, open_run
from aape.adapter.explain.photo import (
    PhotoExplanation,
    _weight_of_aape,
    aape_of,
    explain_features,
)
from aape.adapter.method.query import Query
from aape.adapter.metrics.right_and_wrong import pack, unpack
from aape.adapter.results import MethodResult, Results
from aape.adapter.run import RunFolder
from aape.adapter.run_classes import trained_positions
from aape.pipeline.datasets import load_manifest
from aape.pipeline.embed.texts import class_embeddings
from aape.pipeline.errors import UserError
from aape.pipeline.store import write_record

C, D, K = 8, 24, 3
NAMES = ["cat", "dog", "[bold]owl[/bold]", "$x$", "fox", "ape", "bee", "ant"]


def unit(array: np.ndarray) -> np.ndarray:
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def feature_file(path: Path, seed: int = 0, written: bool = True) -> Path:
    """Photos around class texts that they do not quite match; each class has K sentences."""
    rng = np.random.default_rng(seed)
    text = unit(rng.normal(size=(C, D)))
    prompts = unit(text[:, None] + 0.7 * rng.normal(size=(C, K, D)) / np.sqrt(D))
    centre = unit(text + 1.2 * rng.normal(size=(C, D)) / np.sqrt(D))
    tensors = {"class_text.features": text, "prompt_text.features": prompts}
    for split, each in (("train", 6), ("test", 9)):
        y = np.repeat(np.arange(C), each)
        noise = rng.normal(size=(len(y), D)) / np.sqrt(D)
        tensors |= {f"{split}.features": unit(centre[y] + 0.6 * noise), f"{split}.labels": y}
    metadata = {"classnames": json.dumps(NAMES), "dataset": "toy", "encoder": "toy"}
    metadata["logit_scale"] = "20"
    if written:
        texts = [[f"sentence {j} about {name}" for j in range(K)] for name in NAMES]
        metadata["prompt_texts"] = json.dumps(texts)
    save_file(tensors, path, metadata=metadata)
    return path


def train(folder: Path, out: str, recipe: str = "default", **changes) -> Path:
    from aape.adapter.method.recipe import load_recipe

    values = load_recipe(recipe).model_dump()
    if recipe == "staged":
        values |= {"epochs": 3}
    config = Config.parse(
        {
            "data": {"features": str(folder / "toy.safetensors")},
            "recipe": values,
            "evaluation": {"shots": 4, "seeds": [1, 2], "baselines": ["fast"], **changes},
        },
        "test",
    )
    run_classification(config, folder / out)
    return folder / out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    feature_file(folder / "toy.safetensors")
    for recipe in ("default", "staged"):
        train(folder, recipe, recipe)
    train(folder, "all-shots", shots="all", protocol="fewshot")
    return folder


@pytest.mark.parametrize("recipe", ["default", "staged"])
def test_what_terms_add_is_the_logit(folder: Path, recipe: str) -> None:
    run = open_run(folder / recipe)
    x = torch.from_numpy(load_file(folder / "toy.safetensors")["test.features"])
    logits = run.adapter.logits(x, run.classes)
    for row in (0, 20, 71):
        found = explain_features(run, x[row], f"test:{row}", top=C)
        assert [a.class_id for a in found.classes] == logits[row].argsort(descending=True).tolist()
        for answer in found.classes:
            wanted = float(logits[row, answer.class_id])
            assert answer.logit == pytest.approx(wanted, abs=1e-3)
            assert sum(answer.terms.values()) == pytest.approx(wanted, abs=1e-3)
            assert answer.seen == (answer.class_id < C // 2)
            if answer.of_zero_shot:
                parts = sum(answer.of_zero_shot.values())
                assert parts == pytest.approx(answer.terms["zero-shot"], abs=1e-3)
            if "descriptions" in answer.of_zero_shot:
                assert len(answer.sentences) == K
                shares = sum(sentence.value for sentence in answer.sentences)
                assert shares == pytest.approx(answer.of_zero_shot["descriptions"], abs=1e-3)
        assert sum(a.probability for a in found.classes) == pytest.approx(1, abs=1e-4)


def test_the_split_of_zero_shot_holds_at_any_share_of_descriptions(folder: Path) -> None:
    from dataclasses import replace

    from aape.adapter.method.problem import ClassText

    run = open_run(folder / "default")
    x = torch.from_numpy(load_file(folder / "toy.safetensors")["test.features"][5])
    for share in (0.0, 0.3, 1.0):
        run.adapter = replace(run.adapter, class_text=ClassText("template", share))
        for answer in explain_features(run, x, "a", top=C).classes:
            parts = sum(answer.of_zero_shot.values())
            assert parts == pytest.approx(answer.terms["zero-shot"], abs=1e-4)
            shares = sum(sentence.value for sentence in answer.sentences)
            assert shares == pytest.approx(answer.of_zero_shot.get("descriptions", 0), abs=1e-4)


def test_nearest_sentences_are_those_of_a_plain_loop(folder: Path) -> None:
    found = explain(folder / "default", "test:3")
    assert isinstance(found, PhotoExplanation)
    tensors = load_file(folder / "toy.safetensors")
    x, prompts = tensors["test.features"][3], tensors["prompt_text.features"]
    cosines = {
        f"sentence {j} about {NAMES[i]}": float(x @ prompts[i, j])
        for i in range(C)
        for j in range(K)
    }
    best = sorted(cosines, key=lambda text: -cosines[text])[:5]
    assert [each.text for each in found.near_photo] == best
    assert found.truth == "cat"
    assert found.near_photo[0].value == pytest.approx(cosines[best[0]], abs=1e-4)


def test_a_sentence_carries_what_its_class_loses_without_it(folder: Path) -> None:
    run = open_run(folder / "default")
    found = explain(folder / "default", class_name="dog")
    assert isinstance(found, ClassExplanation)
    assert found.seen
    assert [c.name for c in found.confused_with], "someone is confused with it, or near"
    share = run.adapter.class_text.share or 1.0
    tensors = load_file(folder / "toy.safetensors")
    draw = run.source.draw(4, 1).train  # type: ignore[union-attr]
    x, y = torch.from_numpy(draw.x), torch.from_numpy(draw.y)
    apart = x[y == 1].mean(0) - x[y != 1].mean(0)
    base = torch.from_numpy(tensors["class_text.features"][1])
    prompts = torch.from_numpy(tensors["prompt_text.features"][1])

    def text(kept: list[int]) -> torch.Tensor:
        mean = F.normalize(prompts[kept].sum(0), dim=-1)
        return F.normalize((1 - share) * base + share * mean, dim=-1)

    weight = run.adapter.table["zero-shot"][0]
    for j in range(K):
        moved = text([0, 1, 2]) - text([i for i in range(K) if i != j])
        wanted = float(weight * 20 * apart @ moved)
        effect = next(e for e in found.sentences if e.text == f"sentence {j} about dog")
        assert effect.carries == pytest.approx(wanted, abs=1e-4)
    values = [effect.carries for effect in found.sentences]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]


def test_shared_sentences_use_each_once() -> None:
    vectors = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.9, 0.0]]), dim=-1)
    sentences = Sentences(["a", "b", "c", "d"], vectors, [0, 0, 1, 1])
    pairs = shared_sentences(sentences, 0, 1)
    assert [(p.own, p.other) for p in pairs] == [("a", "d"), ("b", "c")]
    assert shared_sentences(sentences, 0, 2) == []


def test_names_that_repeat_keep_their_place() -> None:
    names = ["missile", "cat", "missile", "dog"]
    about = {"all_class_names": names, "class_names": ["missile", "cat"]}
    assert trained_positions(about) == [0, 1, -1, -1]
    assert trained_positions(about | {"class_ids": [2, 1]}) == [-1, 1, 0, -1]


@pytest.mark.parametrize("kind", [".svg", ".png"])
def test_a_picture_is_drawn_whatever_names_hold(folder: Path, tmp_path: Path, kind: str) -> None:
    for name, asked in (("photo", {"photo": "test:20"}), ("class", {"class_name": "$x$"})):
        path = tmp_path / f"{name}{kind}"
        explain(folder / "default", picture=path, **asked)
        start = path.read_bytes()[:60]
        assert start.startswith(b"\x89PNG") if kind == ".png" else b"<?xml" in start
    if kind == ".svg":
        assert "$x$" in (tmp_path / "class.svg").read_text(), "text stays text"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "Name what to explain"),
        ({"photo": "test:0", "class_name": "cat"}, "Name what to explain"),
        ({"photo": "test:999"}, "has 72 rows"),
        ({"photo": "photo.jpg"}, "says nothing of photos"),
        ({"class_name": "cta"}, "Nearest: 'cat'"),
        ({"photo": "test:0", "picture": "a.pdf"}, "neither .svg nor .png"),
        ({"photo": "test:0", "features": "nowhere.safetensors"}, "There is no feature file"),
    ],
)
def test_bad_input(folder: Path, asked: dict, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        explain(folder / "default", **asked)


def test_a_feature_file_that_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    other = feature_file(tmp_path / "toy.safetensors", seed=9)
    with pytest.raises(UserError, match="is not the feature file"):
        explain(folder / "default", "test:0", features=other)


def test_a_file_without_sentences_names_whole_classes(tmp_path: Path) -> None:
    feature_file(tmp_path / "toy.safetensors", written=False)
    run = train(tmp_path, "run", baselines=["none"])
    found = explain(run, "test:0")
    assert isinstance(found, PhotoExplanation)
    assert found.near_photo[0].text.startswith("(all that is written about")
    assert "keeps no sentences" in found.notes[0]
    carried = explain(run, class_name="cat")
    assert isinstance(carried, ClassExplanation)
    assert carried.sentences == []


def test_a_bank_is_known_by_its_content_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "a.parquet").write_bytes(b"other rows")
    (tmp_path / "secret.txt").write_bytes(b"x")
    for recorded in ("a.parquet", str(tmp_path / "secret.txt"), "/etc/passwd"):
        with pytest.raises(UserError, match="is not here, or it changed"):
            bank_of_run(run, {"bank": recorded, "bank_sha256": "0" * 64})
    with pytest.raises(UserError, match="its content differs"):
        bank_of_run(run, {"bank": "a", "bank_sha256": "0" * 64}, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="without a bank"):
        bank_of_run(run, {})


def test_the_command_prints_names_as_they_are(folder: Path, aape) -> None:
    done = aape("explain", "default", "test:20", "--top", "8", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "[bold]owl[/bold]" in done.stdout.replace("\n", "").replace(" ", "") or (
        "owl[/bold]" in done.stdout
    )
    found = json.loads(aape("explain", "default", "--class", "2", "--json", cwd=folder).stdout)
    assert found["name"] == NAMES[2]
    assert len(found["sentences"]) == K


# --- two runs ---


def test_right_and_wrong_pack_to_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 7, 8, 9, 1000):
        right = rng.random(n) < 0.5
        assert np.array_equal(unpack(pack(right), n), right)
    with pytest.raises(ValueError, match="another number"):
        unpack(pack(right), 999 - 8)
    with pytest.raises(ValueError, match="damaged"):
        unpack("%%%", 4)


def test_two_runs_are_paired_image_by_image(folder: Path) -> None:
    (table,) = compare(folder / "default", folder / "staged", resamples=200)
    assert table.best == "H"
    zero = next(m for m in table.methods if m.name == "zero-shot template")
    assert zero.difference["base"] == 0
    assert zero.intervals["H"] == (0, 0)
    same, ours = compare(folder / "default", folder / "default", resamples=50)[0], table.methods[0]
    assert set(same.methods[0].intervals.values()) == {(0.0, 0.0)}
    from aape.adapter.results import Results

    tables = [
        Results.load(folder / r / "results" / "classification.json").methods[0]
        for r in ("default", "staged")
    ]
    other = next(m for m in table.methods if m.second and not m.first)
    assert ours.first["H"][0] == pytest.approx(tables[0].mean("H"))
    assert other.second["H"][0] == pytest.approx(tables[1].mean("H"))


def test_other_images_are_not_paired(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "toy.safetensors")
    tensors["test.labels"] = tensors["test.labels"][:-1].copy()
    tensors["test.features"] = tensors["test.features"][:-1].copy()
    metadata = {"classnames": json.dumps(NAMES), "dataset": "toy", "encoder": "toy"}
    save_file(tensors, tmp_path / "toy.safetensors", metadata=metadata)
    run = train(tmp_path, "run", baselines=["fast"])
    (table,) = compare(folder / "default", run)
    assert any("tested on other images" in note for note in table.notes)
    assert all(not method.intervals for method in table.methods)


def test_images_of_equal_labels_are_not_paired_by_that(folder: Path, tmp_path: Path) -> None:
    from aape.adapter.compare import compare_tables
    from aape.adapter.results import Results

    table = Results.load(folder / "default" / "results" / "classification.json")
    assert set(table.details["images_sha256"]) == {"base", "new"}
    feature_file(tmp_path / "toy.safetensors", seed=9)  # as many photos a class, others
    other = Results.load(train(tmp_path, "run") / "results" / "classification.json")
    assert other.details["labels_sha256"] == table.details["labels_sha256"]
    found = compare_tables(table, other)
    assert any("tested on other images" in note for note in found.notes)
    assert all(not method.intervals for method in found.methods)
    assert not compare_tables(table, table).notes
    # photos say it whatever the encoder; an older run says nothing
    photos = {"base": "photos:a", "new": "photos:b"}
    table.details["images_sha256"], other.details["images_sha256"] = photos, dict(photos)
    other.encoder = "another"
    (note,) = compare_tables(table, other).notes
    assert "encoder" in note
    assert compare_tables(table, other).methods[0].intervals
    del table.details["images_sha256"]
    found = compare_tables(table, other)
    assert any("known of their labels alone" in note for note in found.notes)
    assert found.methods[0].intervals


def test_runs_of_nothing_in_common(folder: Path, tmp_path: Path, aape) -> None:
    run = tmp_path / "run"
    text = (folder / "default" / "results" / "classification.json").read_text()
    (run / "results").mkdir(parents=True)
    other = json.loads(text.replace('"toy"', '"other"'))
    write_record(run / "results" / "classification.json", other)
    done = aape("compare", folder / "default", run, cwd=tmp_path)
    assert done.returncode == 2
    assert "no table in common" in done.stderr
    done = aape("compare", folder / "default", folder / "staged", "--resamples", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_run_on_all_photos_explains_its_photos_and_classes(folder: Path) -> None:
    """``all`` is what `aape train photos/` takes."""
    run = open_run(folder / "all-shots")
    x = torch.from_numpy(load_file(folder / "toy.safetensors")["test.features"])
    assert explain_features(run, x[0], "test:0").classes[0].seen
    photos, why = training_photos(run, None)
    assert why == ""
    assert photos is not None
    assert len(photos[1]) == 6 * C
    run.about["shots"] = "some"
    with pytest.raises(UserError, match="'some' shots"):
        training_photos(run, None)


def test_a_single_test_set_has_no_name_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    from aape.adapter.commands.print_explanation import print_explanation

    for test, said in [("accuracy", "accuracy: ours 75.0 %"), ("new", "accuracy on new: ours 75")]:
        found = ClassExplanation("cat", 0, True, 0.0, {test: {"ours": 75.0}}, [], [])
        print_explanation(found)
        assert said in capsys.readouterr().out


# --- what the table of results tells of a class ---


def told_of(folder: Path, tmp_path: Path, class_id: int, names: list[str], details: dict):
    """Explain a class by a table of results whose row of ours holds these details."""
    ours = MethodResult("default", [], "ours", details=details)
    table = Results("classification", "fewshot/1", "toy", "toy", ["accuracy"], [ours])
    (tmp_path / "results").mkdir(exist_ok=True)
    table.save(tmp_path / "results" / "classification.json")
    run = replace(open_run(folder / "default"), folder=RunFolder(tmp_path), names=names)
    return explain_class_of(run, class_id, None, "no photos")


MATRIX = [[8, 0, 1], [2, 6, 1], [0, 0, 9]]
THREE = ["missile", "cat", "missile"]
REPEATED = THREE + NAMES[3:]


def by_class(*values: float) -> dict:
    return {"accuracy": {f"{i} {THREE[i]}": value for i, value in enumerate(values)}}


def test_confusions_are_counted_both_ways(folder: Path, tmp_path: Path) -> None:
    keys = {f"{i} {name}": 50.0 for i, name in enumerate(NAMES[:3])}
    details = {"per_class": {"base": keys}, "confusion": {"base": {"matrix": MATRIX}}}
    found = told_of(folder, tmp_path, 0, NAMES, details)
    confused = [(c.name, c.taken_for_it, c.takes_it) for c in found.confused_with]
    assert confused == [("dog", 0, 2), ("[bold]owl[/bold]", 1, 0)]
    assert found.accuracy == {"base": {"default": 50.0}}
    assert "no photos" in found.notes
    # of many classes the table keeps the most confused alone, by name; another set has others
    details = {"confusion": {"test": {"most_confused": [["cat", "fox", 4], ["yak", "cat", 3]]}}}
    found = told_of(folder, tmp_path, 0, NAMES, details)
    confused = [(c.name, c.taken_for_it, c.takes_it) for c in found.confused_with]
    assert confused == [("fox", 4, 0), ("yak", 0, 3)]
    assert found.confused_with[0].shared
    assert not found.confused_with[1].shared


def test_of_classes_of_one_name_each_has_its_own_figures(folder: Path, tmp_path: Path) -> None:
    details = {
        "per_class": by_class(80.0, 60.0, 90.0),
        "confusion": {"accuracy": {"matrix": MATRIX}},
    }
    first = told_of(folder, tmp_path, 0, REPEATED, details)
    second = told_of(folder, tmp_path, 2, REPEATED, details)
    assert (first.accuracy, second.accuracy) == (
        {"accuracy": {"default": 80.0}},
        {"accuracy": {"default": 90.0}},
    )
    of = [
        [(c.name, c.taken_for_it, c.takes_it) for c in one.confused_with] for one in (first, second)
    ]
    assert of == [[("cat", 0, 2), ("missile", 1, 0)], [("missile", 0, 1), ("cat", 0, 1)]]
    # new classes alone: the place in the test set is no class of the run
    details["per_class"] = {"new": {"0 missile": 10.0}}
    assert (
        told_of(folder, tmp_path, 2, REPEATED[1:3] + REPEATED[:1] + NAMES[3:], details).accuracy
        == {}
    )
    assert "several classes are called 'missile'" in " ".join(first.notes).lower()


def test_a_run_without_a_table_names_the_nearest_texts(folder: Path, tmp_path: Path) -> None:
    run = open_run(folder / "default")
    nearest = [
        c.name
        for c in explain_class_of(replace(run, folder=RunFolder(tmp_path)), 0, None).confused_with
    ]
    text = run.classes.text(run.adapter.class_text)
    order = (text @ text[0]).argsort(descending=True).tolist()
    assert nearest == [NAMES[i] for i in order if i != 0][:3]


def test_a_name_that_several_classes_have_is_asked_for_by_id(folder: Path) -> None:
    run = replace(open_run(folder / "default"), names=REPEATED)
    with pytest.raises(
        UserError, match=r"2 classes are called 'missile'\. Name one by its id: 0, 2"
    ):
        run.class_id("missile")
    assert run.class_id("2") == 2
    assert run.class_id("CAT") == 1


def test_the_only_sentence_of_a_class_leaves_its_name_alone(folder: Path) -> None:
    """At β = 1 nothing would be left without it."""
    run = open_run(folder / "default")
    run.sentences = Sentences(["alone"], unit_vector(0), [0])
    texts = unit_vector(1).repeat(C, 1)
    run.classes = replace(run.classes, template=texts, ensemble=texts)
    (effect,) = sentence_effects(run, 0, [0], None, 0.5)
    assert effect.turns == pytest.approx(1 - 0.5**0.5, abs=1e-6)
    (effect,) = sentence_effects(run, 0, [0], None, 1.0)
    assert effect.turns == pytest.approx(1.0)
    assert effect.carries is None
    assert sentence_effects(run, 1, [], None, 1.0) == []


def unit_vector(place: int) -> torch.Tensor:
    return torch.eye(D)[place : place + 1]


def test_a_linear_generator_is_read_where_the_mean_text_is_the_origin() -> None:
    query = Query(2 * torch.eye(3), torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0]))
    adapter = SimpleNamespace(
        term=lambda name: SimpleNamespace(query=query) if name == "query" else None,
        table={"query": (0.0, 0.4)},
    )
    h, origin, told = aape_of(adapter, torch.tensor([[1.0, 1.0, 0.0]]))  # type: ignore[misc]
    assert h.tolist() == [[0, 2, 0]]
    assert origin is not None
    assert origin.tolist() == [0, 0, 1]
    assert "of the query" in told
    # its weight is 0 for classes that were trained on
    assert "adds nothing" in _weight_of_aape(adapter, [True])
    assert _weight_of_aape(adapter, [True, False]) == ""


@pytest.mark.parametrize("base", ["ensemble", "template"])
def test_class_texts_are_built_as_training_built_them(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path))
    manifest, encoder = load_manifest("eurosat"), FakeEncoder()
    names = manifest.class_names
    about = {"template": manifest.templates[0], "dataset": "eurosat", "class_text": {"base": base}}
    told = Sentences([], torch.zeros(0, encoder.dim), [])
    found = _classes(encoder, about, names, torch.zeros(len(names)), told)
    every = list(dict.fromkeys([*manifest.templates, *manifest.ensemble]))
    assert len(every) > 1
    template, whole = (class_embeddings(encoder, names, t) for t in (manifest.templates[:1], every))
    np.testing.assert_array_equal(found.template, template)
    np.testing.assert_array_equal(found.ensemble, whole if base == "ensemble" else template)
    np.testing.assert_array_equal(found.described, template)  # nothing is written
    about["dataset"] = "../eurosat"
    if base == "ensemble":
        with pytest.raises(UserError, match="no plain name"):
            _classes(encoder, about, names, torch.zeros(len(names)), told)


def test_a_run_whose_data_set_is_no_name_has_no_training_photos(folder: Path) -> None:
    run = replace(open_run(folder / "default"), source=None)
    run.about["dataset"] = "../../etc"
    photos, why = training_photos(run, None)
    assert photos is None
    assert "only texts are compared" in why
    assert "no plain name" in why

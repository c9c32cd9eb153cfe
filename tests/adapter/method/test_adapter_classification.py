"""Classification end to end: sources, the table, what is reused, faults by exit status."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import unit_rows
from toy_features import C, D, feature_file

from aape.adapter.classification.data import ClassificationData
from aape.adapter.classification.draws import sample_rows, waffle_templates
from aape.adapter.classification.evaluate import evaluate_classification
from aape.adapter.classification.feature_file import FileSource
from aape.adapter.classification.methods import CONTROL_NOTES
from aape.adapter.classification.run import run_classification
from aape.adapter.config import Config, EvaluationConfig
from aape.adapter.method.adapter import FittedAdapter
from aape.adapter.method.recipe import CONTROL_GROUPS, DEFAULT, STAGED, controlled
from aape.adapter.results import Results
from aape.adapter.run import RunFolder
from aape.pipeline.errors import UserError

QUICK = STAGED.model_copy(update={"name": "default", "epochs": 2, "batch_size": 8})


@pytest.fixture
def features(tmp_path: Path) -> Path:
    return feature_file(tmp_path / "things.safetensors")


def settings(**changes: Any) -> EvaluationConfig:
    fast: dict[str, Any] = {"shots": 4, "seeds": [0, 1], "baselines": ["fast", "GDA"]}
    return EvaluationConfig(**(fast | {"resamples": 50} | changes))


def test_table_has_everything(features):
    results = evaluate_classification(
        FileSource(features), QUICK, settings(controls=["shuffled", "no-generator"])
    )
    names = [method.name for method in results.methods]
    assert names == [
        "ours", "ours, shuffled", "ours, no-generator", "zero-shot template", "template ensemble",
        "mean of prompts", "waffle", "GDA",
    ]  # fmt: skip
    assert results.metrics == ["base", "new", "H", "100-ECE"]
    assert results.protocol == "base2new/1"
    ours = results.method("ours")
    assert [row["seed"] for row in ours.seeds] == [0, 1]
    for row in ours.seeds:
        assert row["H"] == pytest.approx(2 * row["base"] * row["new"] / (row["base"] + row["new"]))
    assert ours.mean("H") > 60
    assert ours.parameters
    assert ours.details["per_class"]["new"].keys() == {"0 thing 3", "1 thing 4", "2 thing 5"}
    matrix = np.array(ours.details["confusion"]["base"]["matrix"])
    assert matrix.sum() == 2 * 3 * 20
    assert np.diag(matrix).sum() / matrix.sum() == pytest.approx(ours.mean("base") / 100)
    assert set(results.intervals) == {f"ours - {name}" for name in names[1:]}
    low, high = results.intervals["ours - zero-shot template"]["H"]
    assert low <= ours.mean("H") - results.method("zero-shot template").mean("H") <= high
    assert any("--new-classes bank" in note for note in results.notes)
    assert results.details["zero_shot_check"]


def test_the_bank_reaches_new_classes_and_the_papers_rule_has_a_row(features):
    """Prompts of this file are nearer to the images than its class texts: the texts must move."""
    controls = ["shuffled", "template", "untrained", "no-generator"]
    results = evaluate_classification(FileSource(features), DEFAULT, settings(controls=controls))
    names = [method.name for method in results.methods]
    assert names[:5] == [
        "ours", "ours, new classes by name", "ours, shuffled", "ours, template", "ours, untrained",
    ]  # fmt: skip
    assert "ours, no-generator" not in names, "the recipe has no generator to take away"
    ours, named = results.method("ours"), results.method("ours, new classes by name")
    assert [row["base"] for row in ours.seeds] == [row["base"] for row in named.seeds]
    alone = evaluate_classification(
        FileSource(features), DEFAULT, settings(new_classes="name", baselines=["none"])
    )
    assert [m.name for m in alone.methods] == ["ours"]
    assert [row["new"] for row in alone.methods[0].seeds] == [row["new"] for row in named.seeds]
    without = [one["class text"]["share"] for one in ours.details["chosen"]].count(0)
    said = [note for note in results.notes if "language is not at work" in note]
    assert [note.split(" the ")[0] for note in said] == {
        0: [],
        1: ["On 1 of 2 seeds"],
        2: ["On every seed"],
    }[without]


def test_it_is_said_where_descriptions_have_no_share_of_the_class_texts(features):
    silent = DEFAULT.model_copy(
        update={"class_text": DEFAULT.class_text.model_copy(update={"shares": [0.0]})}
    )
    asked = settings(controls=["shuffled"], baselines=["none"])
    results = evaluate_classification(FileSource(features), silent, asked)
    assert [n for n in results.notes if n.startswith("On every seed")]
    rows = [results.method(name).seeds for name in ("ours", "ours, shuffled")]
    assert rows[0] == rows[1]
    without = evaluate_classification(FileSource(features), silent, settings(baselines=["none"]))
    assert not any("language is not at work" in note for note in without.notes)


def test_controls_swap_the_texts_of_new_classes_too(features):
    data = FileSource(features).draw(4, 0)
    swapped = data.texts.with_control("shuffled", 0)
    for i in range(C):
        assert not np.array_equal(swapped.prompts[i], data.texts.prompts[i])
    assert sorted(map(bytes, swapped.prompts)) == sorted(map(bytes, data.texts.prompts))
    template = data.texts.with_control("template", 0)
    np.testing.assert_allclose(template.described, data.texts.ensemble, atol=1e-6)
    assert data.texts.with_control("no-generator", 0) is data.texts


def test_real_files_name_their_texts_the_other_way_round(tmp_path):
    texts = unit_rows(np.random.default_rng(5).normal(size=(3, C, D)))
    path = feature_file(
        tmp_path / "a.safetensors",
        drop=("class_text.features", "prompt_text.features"),
        **{"text_name.features": texts[0], "text_ensemble.features": texts[1],
           "text_descriptions.features": texts[2]},
    )  # fmt: skip
    found = FileSource(path).texts
    for array, expected in zip((found.template, found.ensemble, found.described), texts):
        np.testing.assert_allclose(array, expected, atol=1e-6)


def test_same_seed_same_table_and_other_shots_other_images(features):
    one, two = (evaluate_classification(FileSource(features), QUICK, settings()) for _ in range(2))
    assert [m.seeds for m in one.methods] == [m.seeds for m in two.methods]
    source = FileSource(features)
    assert not np.array_equal(source.draw(4, 0).train.x, source.draw(4, 1).train.x)
    np.testing.assert_array_equal(source.draw(4, 0).train.x, source.draw(4, 0).train.x)


def test_finished_work_is_reused_and_changes_are_not(features, tmp_path, monkeypatch):
    from aape.adapter.classification import evaluate as classification

    trained: list[str] = []
    original = classification._train_and_test

    def count(method, *rest):
        trained.append(method.name)
        return original(method, *rest)

    monkeypatch.setattr(classification, "_train_and_test", count)
    run = RunFolder(tmp_path / "run")
    first = evaluate_classification(FileSource(features), QUICK, settings(), run=run)
    assert len(trained) == 12
    trained.clear()
    second = evaluate_classification(FileSource(features), QUICK, settings(), run=run)
    assert trained == []
    assert [m.seeds for m in first.methods] == [m.seeds for m in second.methods]
    evaluate_classification(FileSource(features), QUICK, settings(seeds=[0, 1, 2]), run=run)
    assert len(trained) == 6
    trained.clear()
    stronger = QUICK.model_copy(update={"distillation": 9.0})
    evaluate_classification(FileSource(features), stronger, settings(), run=run)
    assert trained == ["ours", "ours"]
    # both recipes' adapters are kept, so going back trains nothing and brings the right one back
    trained.clear()
    evaluate_classification(FileSource(features), QUICK, settings(), run=run)
    assert trained == []
    assert run.load_weights()[1]["recipe"]["distillation"] == QUICK.distillation


def test_a_kill_loses_no_finished_training(features, tmp_path, monkeypatch):
    from aape.adapter.classification import evaluate as classification

    original = classification._train_and_test

    def kill(method, views, *rest):
        if (method.name, views.seed) == ("GDA", 1):
            raise KeyboardInterrupt
        return original(method, views, *rest)

    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(classification, "_train_and_test", kill)
        with pytest.raises(KeyboardInterrupt):
            evaluate_classification(FileSource(features), QUICK, settings(), run=run)
    assert len(list((tmp_path / "run" / "work").glob("*.safetensors"))) == 11
    whole = evaluate_classification(FileSource(features), QUICK, settings())
    resumed = evaluate_classification(FileSource(features), QUICK, settings(), run=run)
    assert [m.seeds for m in whole.methods] == [m.seeds for m in resumed.methods]


def test_run_folder(features, tmp_path):
    config = Config.parse(
        {
            "data": {"features": str(features)},
            "recipe": QUICK.model_dump(),
            "evaluation": settings().model_dump(),
        },
        "test",
    )
    results = run_classification(config, tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    assert Config.from_yaml(run.path / "config.yaml") == config
    assert Results.load(run.results_path("classification")).methods == results.methods
    assert (run.path / "environment.json").exists()
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["epoch"] for line in lines} == {1, 2}
    tensors, about = run.load_weights()
    assert about["class_names"] == ["thing 0", "thing 1", "thing 2"]
    assert about["encoder"] == "toy tower"
    data = FileSource(features).draw(4, 0)
    fitted = FittedAdapter.load(tensors, about)
    (base, _) = _tests(data)
    import torch

    right = fitted.logits(torch.from_numpy(base.images.x), base.classes).argmax(1).numpy()
    found = float((right == base.images.y).mean() * 100)
    assert found == pytest.approx(results.method("ours").seeds[0]["base"])


def _tests(data: ClassificationData):
    from aape.adapter.classification.protocols import load_protocol

    return load_protocol("base2new").test_sets(data)


def test_generalized_says_what_is_called_seen(features):
    results = evaluate_classification(
        FileSource(features), QUICK, settings(protocol="generalized", baselines=["fast"])
    )
    shares = results.method("ours").details["called_seen"]
    assert np.mean(shares["base"]) > np.mean(shares["new"])


def test_fixed_shots_are_said_and_pools_are_sampled(tmp_path):
    path = feature_file(tmp_path / "a.safetensors")
    pool = FileSource(path)
    assert not any("fixes the shots" in note for note in pool.draw(4, 0).notes)
    x, y = pool.split("train").x, pool.split("train").y
    fixed = feature_file(
        tmp_path / "b.safetensors",
        drop=("train.features", "train.labels"),
        **{"train_10shot.features": x, "train_10shot.labels": y},
    )
    data = FileSource(fixed).draw(10, 0)
    assert any("fixes the shots" in note for note in data.notes)
    with pytest.raises(UserError, match="train_3shot"):
        FileSource(fixed).draw(3, 0)


def test_validation_never_holds_new_classes(features):
    data = FileSource(features).draw(4, 0)
    problem = data.few_shot(data.base_ids)
    assert set(problem.val_y.tolist()) == {0, 1, 2}
    assert len(problem.w) == 3


def test_baselines_that_cannot_be_had_are_left_out_with_the_reason(tmp_path):
    path = feature_file(tmp_path / "a.safetensors", drop=("waffle_text.features",))
    results = evaluate_classification(FileSource(path), QUICK, settings())
    assert "waffle" not in [method.name for method in results.methods]
    assert any(note.startswith("waffle is left out") for note in results.notes)


def test_a_control_that_cannot_run_is_said_before_any_training(tmp_path, monkeypatch):
    path = feature_file(tmp_path / "a.safetensors", drop=("waffle_text.features",))
    from aape.adapter.classification import methods

    order: list[str] = []
    monkeypatch.setattr("aape.adapter.classification.evaluate.step", order.append)
    true_fit = methods.fit
    monkeypatch.setattr(
        methods, "fit", lambda *given, **named: order.append("fit") or true_fit(*given, **named)
    )
    results = evaluate_classification(
        FileSource(path), QUICK, settings(controls=["waffle", "no-query"], baselines=["none"])
    )
    assert "ours, waffle is left out" in " ".join(results.notes)
    assert "waffle_text.features" in order[0]
    assert "fit" in order[1:]
    names = [method.name for method in results.methods if method.group in ("ours", "control")]
    assert len(names) == 2
    assert names[1].endswith("no-query")


def test_classes_with_few_images_are_filled_up_on_request(tmp_path: Path):
    labels = np.array([0] * 3 + [1] * 8)
    rows = sample_rows(labels, 5, random.Random(0), repeat=True)
    assert np.bincount(labels[rows]).tolist() == [5, 5]
    assert len(set(rows[labels[rows] == 1].tolist())) == 5, "without replacement where it can"
    assert len(sample_rows(labels, 5, random.Random(0))) == 8
    path = feature_file(tmp_path / "a.safetensors")
    shots = 500
    with pytest.raises(UserError, match="have fewer training images than 500 shots"):
        FileSource(path).draw(shots, 0)
    assert len(FileSource(path, repeat=True).draw(shots, 0).train) == C * shots


def test_waffle_texts_know_nothing_of_the_class():
    texts = waffle_templates("a photo of a {}.", ["red fox", "blue whale"])
    assert len(texts) == len(set(texts)) == 8
    assert all(text.startswith("a photo of a {}, which has ") for text in texts)
    assert texts == waffle_templates("a photo of a {}.", ["red fox", "blue whale"])


BAD = {
    "labels out of range": (
        {"train.labels": np.full(10 * C, 99, np.int32)}, (), "99", []),
    "negative labels": ({"test.labels": np.full(20 * C, -1, np.int32)}, (), "-1", []),
    "fewer images than shots": ({}, (), "fewer training images than 11", ["--shots", "11"]),
    "one class": (
        {"class_text.features": np.eye(1, D, dtype=np.float32)}, (), "at least two classes", []),
    "other width": (
        {"test.features": np.ones((20 * C, D + 1), np.float32)}, (), "same encoder", []),
    "no texts": ({}, ("class_text.features",), "class_text.features", []),
    "no labels": ({}, ("test.labels",), "test.labels", []),
    "not finite": (
        {"test.features": np.full((20 * C, D), np.nan, np.float32)}, (), "not finite", []),
    "class without prompts": (
        {"prompt_text.mask": np.array([[1] * 4] * 2 + [[0] * 4] * 4, np.uint8)}, (),
        "'thing 2'", []),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_bad_features_are_named(tmp_path, fault):
    changed, drop, sentence, options = BAD[fault]
    path = feature_file(tmp_path / "bad.safetensors", drop, **changed)
    shots = int(options[1]) if options else 4
    with pytest.raises(UserError, match=sentence):
        evaluate_classification(FileSource(path), QUICK, settings(shots=shots))


class FakeBank:
    """Enough of a bank to ask whose features it belongs to."""

    path = Path("x.bank.parquet")

    class metadata:
        encoder_id = "ViT-B-32-quickgelu/openai"
        encoder_fingerprint = "ViT-B-32-quickgelu/openai@123"
        class_names = ("thing 0",)


def test_features_of_another_encoder_are_refused(tmp_path):
    other = feature_file(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="come from encoder 'toy tower'"):
        FileSource(other, FakeBank())  # type: ignore[arg-type]
    named = feature_file(tmp_path / "b.safetensors", header={"encoder": "OpenAI CLIP ViT-B/32"})
    source = FileSource(named, FakeBank())  # type: ignore[arg-type]
    assert any("not its weights" in note for note in source.notes)
    with pytest.raises(UserError, match="different class names"):
        source.draw(4, 0)
    wrong = feature_file(tmp_path / "c.safetensors", header={"encoder_fingerprint": "ViT@9"})
    with pytest.raises(UserError, match="ViT@9"):
        FileSource(wrong, FakeBank())  # type: ignore[arg-type]


@pytest.mark.slow
def test_command_line(features, tmp_path, aape):
    out = tmp_path / "run"
    common = ["--shots", "4", "--seeds", "0", "--baselines", "fast", "--json"]
    done = aape("train", "--features", features, *common, "--out", out)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert {m["name"] for m in table["methods"]} >= {"ours", "zero-shot template"}
    again = aape("eval", "classification", out, "--json")
    assert again.returncode == 0, again.stderr
    assert "Reused" in again.stderr
    assert json.loads(again.stdout)["methods"][0]["seeds"] == table["methods"][0]["seeds"]
    wrong = aape("train", "--features", features, "--shots", "40", "--out", tmp_path / "no")
    assert wrong.returncode == 2
    assert "fewer training images than 40 shots" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    nothing = aape("train", "--out", tmp_path / "no")
    assert nothing.returncode == 2
    assert "--bank" in nothing.stderr


def test_data_hash_changes_with_what_matters(features):
    data = FileSource(features).draw(4, 0)
    assert data.hash == FileSource(features).draw(4, 0).hash
    assert data.hash != replace(data, logit_scale=1.0).hash
    assert data.hash != FileSource(features).draw(4, 1).hash
    swapped = replace(data, base_ids=data.new_ids, new_ids=data.base_ids)
    assert data.hash != swapped.hash


@pytest.mark.slow
def test_a_sweep_on_ray_gives_the_same_table(tmp_path, features, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from aape.adapter.sweep import sweep

    config = Config.parse(
        {
            "data": {"features": str(features)},
            "recipe": QUICK.model_dump(),
            "evaluation": settings(baselines=["fast"]).model_dump() | {"resamples": 0},
        },
        "test",
    )
    on_ray, _ = sweep([config], tmp_path / "ray", ray="")
    here, _ = sweep([config], tmp_path / "here", processes=1)
    assert [m.seeds for m in on_ray[0].methods] == [m.seeds for m in here[0].methods]
    with pytest.raises(UserError, match="No Ray cluster"):
        sweep([config], tmp_path / "no", ray="nowhere.invalid:1")


def test_curves_have_one_point_a_number_of_shots(tmp_path, features):
    from aape.adapter.curves import curves
    from aape.adapter.sweep import sweep

    configs = [
        Config.parse(
            {
                "data": {"features": str(features)},
                "recipe": QUICK.model_dump(),
                "evaluation": settings(baselines=["fast"], protocol="fewshot").model_dump()
                | {"shots": shots, "resamples": 0},
            },
            "test",
        )
        for shots in (4, 1)
    ]
    tables, averages = sweep(configs, tmp_path / "out", processes=1)
    assert [average.details["shots"] for average in averages] == [4, 1]
    lines = (tmp_path / "out" / f"curves-{tables[0].dataset}.csv").read_text().splitlines()
    assert lines[0] == "method,shots,mean,std"
    ours = [line.split(",")[1:] for line in lines if line.startswith('"ours')]
    assert [row[0] for row in ours] == ["1", "4"]
    by_shots = {table.details["shots"]: table.methods[0].mean("accuracy") for table in tables}
    assert [float(row[1]) for row in ours] == pytest.approx([by_shots[1], by_shots[4]], abs=1e-3)
    assert {len(points) for points in curves([*tables, *tables]).values()} == {2}
    figure = (tmp_path / "out" / f"curves-{tables[0].dataset}.svg").read_text()
    assert figure.rstrip().endswith("</svg>")


def test_groups_of_controls_are_spelt_out():
    parsed = EvaluationConfig(controls=["aggregators", "mean-prompt", "shuffled"])
    assert parsed.controls == ["random-prompt", "mean-prompt", "mlp-prompt", "shuffled"]
    for group in CONTROL_GROUPS.values():
        for control in group:
            assert control in CONTROL_NOTES
    assert controlled(QUICK, "mlp-prompt").aggregator.kind == "mlp"
    with pytest.raises(ValueError, match="language-model"):
        EvaluationConfig(controls=["language-model"])


def test_sweep_repeats_nothing_and_averages(tmp_path):
    from aape.adapter.sweep import sweep

    paths = [feature_file(tmp_path / f"{name}.safetensors", header={"dataset": name})
             for name in ("a", "b")]  # fmt: skip
    configs = [
        Config.parse(
            {
                "data": {"features": str(path)},
                "recipe": QUICK.model_dump(),
                "evaluation": settings(baselines=["fast"]).model_dump(),
            },
            "test",
        )
        for path in paths
    ]
    tables, (average,) = sweep(configs, tmp_path / "out", processes=2)
    assert [table.dataset for table in tables] == ["a", "b"]
    row, parts = average.method("ours").seeds[0], [t.method("ours").seeds[0] for t in tables]
    assert row["base"] == pytest.approx(np.mean([part["base"] for part in parts]))
    assert row["H"] == pytest.approx(2 * row["base"] * row["new"] / (row["base"] + row["new"]))
    work = tmp_path / "out" / "work"
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.safetensors")}
    again, _ = sweep(configs, tmp_path / "out", processes=2)
    assert before == {path: path.stat().st_mtime_ns for path in work.rglob("*.safetensors")}
    assert [m.seeds for m in again[0].methods] == [m.seeds for m in tables[0].methods]
    alone = evaluate_classification(FileSource(paths[0]), QUICK, settings(baselines=["fast"]))
    exact = not torch.cuda.is_available()  # a GPU adds the photos of a class in any order
    for one, other in zip(alone.methods, tables[0].methods, strict=True):
        for first, second in zip(one.seeds, other.seeds, strict=True):
            assert first == (second if exact else pytest.approx(second, abs=1e-4))


def test_it_is_said_that_a_run_of_another_configuration_is_replaced(tmp_path, capfd):
    run = RunFolder(tmp_path / "run")
    run.start(Config())
    (run.path / "adapter.safetensors").touch()
    run.start(Config())
    run.begin()
    assert "another configuration" not in capfd.readouterr().err
    run.start(Config(evaluation=EvaluationConfig(shots=2)))
    assert "another configuration" not in capfd.readouterr().err, "nothing is replaced yet"
    run.begin()
    assert "another configuration" in capfd.readouterr().err

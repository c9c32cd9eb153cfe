"""Settings from a file, from options and from --set; configurations that are fed back."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from places import GOLDEN

import aape as package
from aape.adapter.classification.verbs import configure
from aape.adapter.config import Config
from aape.adapter.method.recipe import Recipe, load_recipe
from aape.pipeline.config import EncoderConfig, GenerationConfig
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.plan import plan
from aape.pipeline.settings import OF_TREES, fields_of, read_source, settle

FEATURES = GOLDEN / "golden.safetensors"
LITE = EncoderConfig(name="lite")
QUICK = {"evaluation.resamples": 0}


def test_assignments_win_over_options_and_options_over_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("generation: {samples: 3, seed: 4, model: x}\n")
    values = read_source(file, "generation")
    given = {"samples": 5, "seed": None}
    made = settle(GenerationConfig, values, given, ["generation.model=3", "sampling.stop=a,b"],
                  section="generation")  # fmt: skip
    assert (made.samples, made.seed, made.model, made.sampling.stop) == (5, 4, "3", ("a", "b"))
    assert values == {"samples": 3, "seed": 4, "model": "x"}, "the source is left as it is"


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("recipe.convex.folds", "8", 8),
        ("recipe.convex.own", "1,2.5", [1.0, 2.5]),
        ("recipe.convex.own", "[7]", [7.0]),
        ("recipe.convex.whiten", "true", [True]),
        ("evaluation.seeds", "0", [0]),
        ("evaluation.init_seed", "3", 3),
        ("evaluation.baselines", "fast", ["fast"]),
        ("evaluation.resamples", "10", 10),
        ("data.bank", "007.parquet", "007.parquet"),
    ],
)
def test_values_are_read_as_their_setting_wants_them(name, value, found):
    for settings in ([f"{name}={value}"], {name: found}):
        made = configure({"data": {"features": "f"}}, {}, settings)
        here = made
        for part in name.split("."):
            here = getattr(here, part)
        assert here == found


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["recipe.convex.fold=8"], "Did you mean recipe.convex.folds"),
        (["lr=8"], "There is no setting 'lr'. Did you mean recipe.lr"),
        (["recipe=literal"], "recipe is a section, not a setting. See: aape options recipe."),
        (["evaluation.shots"], "is not of the form NAME=VALUE"),
        (
            ["evaluation.shots=-1"],
            "evaluation.shots: Value error, it is a number of images a class, or all",
        ),
        (["recipe.lr=3e-3"], "The recipe 'default' (convex) does not read recipe.lr"),
        (["recipe.seen.residual=false"], "does not read recipe.seen.residual"),
        (["generation.samples=1"], "There is no setting 'generation.samples'"),
    ],
)
def test_settings_that_do_not_exist_or_would_not_be_read(settings, said):
    with pytest.raises(UserError) as caught:
        configure(None, {}, settings)
    assert said in str(caught.value)


def test_every_list_of_numbers_has_bounds_and_no_number_is_nan(tmp_path):
    recipe = load_recipe("default").model_dump()
    names = [n for n, _, default in fields_of(Recipe)
             if isinstance(default, list) and default and type(default[0]) is float]  # fmt: skip
    assert len(names) == 9
    for name in names:
        for bad in ("nan", ".nan", ".inf", "-1"):
            *groups, last = name.split(".")
            part = recipe
            for group in groups:
                part = part[group]
            kept, part[last] = part[last], [yaml.safe_load(bad)]
            with pytest.raises(UserError, match=rf"recipe\.{name}\.0: Input should be"):
                configure({"recipe": recipe}, {})
            part[last] = kept
    with pytest.raises(UserError, match=r"recipe\.convex\.new_own: Input should be a finite"):
        configure(None, {}, ["recipe.convex.new_own=.inf"])
    for bad in ("nan", ".nan", "-1"):
        with pytest.raises(UserError, match=r"recipe\.convex\.own\.0: Input should be"):
            configure(None, {}, [f"recipe.convex.own={bad}"])


def test_what_a_recipe_reads_may_be_set():
    made = configure(None, {}, ["recipe.lr=3e-3"], recipe="staged", distillation=2.0)
    assert (made.recipe.lr, made.recipe.distillation) == (3e-3, 2.0)
    with pytest.raises(UserError, match=r"does not read recipe\.distillation"):
        configure(None, {}, distillation=2.0)
    with pytest.raises(UserError, match=r"does not read recipe\.convex\.folds"):
        configure(None, {}, ["recipe.convex.folds=2"], recipe="staged")
    assert configure({"recipe": "literal"}, {}).recipe.name == "literal"


@pytest.mark.parametrize("name", ["default", "literal"])
def test_old_configurations_are_read_and_their_generation_is_left_out(name):
    file = GOLDEN / f"run-{name}" / "config.yaml"
    old = yaml.safe_load(file.read_text())
    assert "generation" in old
    made = configure(file, {})
    now = yaml.safe_load(made.to_yaml())
    assert "generation" not in now
    for section in ("data", "encoder"):
        assert now[section].items() >= old[section].items()
    assert Config.from_yaml(file).recipe == made.recipe
    # and what it said of generating still can be used for it
    assert plan(["pets"], config=file).config == GenerationConfig.parse(old["generation"], "test")


def test_a_configuration_goes_to_its_own_verb(tmp_path):
    captions, suite = tmp_path / "captions.yaml", tmp_path / "suite.yaml"
    captions.write_text("task: captions\ndataset: shapes\n")
    suite.write_text("name: x\njobs: []\n")
    with pytest.raises(UserError, match=r"a run of captions\. Use: aape train-captions"):
        package.train(config=captions)
    with pytest.raises(UserError, match=r"of a suite\. Run: aape eval all --suite"):
        package.train(config=suite)
    with pytest.raises(UserError, match="no configuration of captions"):
        package.train_captions(config=suite)
    with pytest.raises(UserError, match="is the configuration of a run"):
        plan(["pets"], config={"task": "classification"})
    with pytest.raises(UserError, match="needs a data set"):
        package.train_captions()
    for verb in (package.eval_captioning, package.eval_vqa):
        for file, whose in ((captions, "run"), (suite, "suite")):
            with pytest.raises(UserError, match=f"{file} is the configuration of a {whose} and"):
                verb("nowhere", config=file)
    with pytest.raises(UserError, match="of a run, not of a suite"):
        package.eval_all(captions)


def test_a_wrong_setting_of_a_file_is_said_of_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("nonsense: 1\n")
    for verb in (
        lambda: configure(file, {}),
        lambda: package.eval_captioning("nowhere", config=file),
        lambda: package.eval_vqa("nowhere", config=file),
        lambda: package.train_captions("shapes", config=file),
        lambda: plan(["pets"], config=file),
    ):
        with pytest.raises(UserError, match=f"{file} is not valid: nonsense"):
            verb()


def test_a_wrong_option_or_assignment_is_not_said_of_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("evaluation: {shots: 4}\n")
    for given, settings, place in (
        ({}, ["evaluation.shots=abc"], "evaluation.shots"),
        ({}, ["evaluation.seeds=1,x"], "evaluation.seeds.1"),
        ({"evaluation.new_classes": "foo"}, [], "evaluation.new_classes"),
    ):
        with pytest.raises(UserError, match=f"^What was set is not valid: {place}: "):
            configure(file, given, settings)
    file.write_text("evaluation: {shots: abc}\n")
    with pytest.raises(UserError, match=rf"^{file} is not valid: evaluation\.shots"):
        configure(file, {}, ["evaluation.resamples=0"])
    assert configure(file, {}, ["evaluation.shots=2"]).evaluation.shots == 2


def test_where_weights_lie_is_not_taken_from_a_file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("encoder: {name: ViT-B-16, checkpoint: /somewhere/weights.pt}\n")
    with pytest.raises(UserError, match="Give them with --checkpoint"):
        configure(file, {})
    assert configure(file, {}, checkpoint="mine.pt").encoder.checkpoint == "mine.pt"
    for verb in (package.train_captions, package.train):
        with pytest.raises(UserError, match="Give them with --checkpoint"):
            verb(config=file)


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ("bogus: 1", "bogus: it is neither a section nor a setting"),
        ("encoder: {bogus: 1}", "encoder.bogus: Extra inputs are not permitted"),
        ("generation: {verdicts: {bogus: 1}}", "generation.verdicts.bogus: Extra inputs"),
        ("recipe: {bogus: 1}", "recipe.bogus: Extra inputs"),
        ("captions: {bogus: 1}", "captions.bogus: Extra inputs"),
        ("evaluation: {bogus: 1}", "evaluation.bogus: Extra inputs"),
    ],
)
def test_what_stands_beside_the_section_that_is_read_is_checked_too(tmp_path, beside, said):
    from aape.adapter.run import RunFolder

    RunFolder(tmp_path / "run").start(Config())
    file = tmp_path / "c.yaml"
    verbs = {
        "evaluation": lambda: package.eval_classification(tmp_path / "run", config=file),
        "captioning": lambda: package.eval_captioning("nowhere", config=file),
        "vqa": lambda: package.eval_vqa("nowhere", config=file),
        "generation": lambda: plan(["pets"], config=file),
    }
    for section, verb in verbs.items():
        if beside.startswith(section):
            continue
        if section == "generation" and beside.startswith(("recipe", "captions", "evaluation")):
            continue  # of the floor above: only its name is known there
        file.write_text(f"{section}: {{}}\n{beside}\n")
        with pytest.raises(UserError, match=re.escape(f"{file} is not valid: {said}")):
            verb()


def test_first_names_of_all_trees_are_known():
    from aape.adapter.captions.run import CaptionRunConfig
    from aape.adapter.known_sections import known_sections
    from aape.adapter.suite.plan import Suite

    trees = {name for tree in (Config, CaptionRunConfig, Suite) for name in tree.model_fields}
    assert set(OF_TREES) == trees | {"generation"} | set(known_sections())


def test_generation_is_left_out_of_files_of_runs_alone():
    for values, said in (
        ({"generation": {"samples": 3}}, "generation: Extra inputs are not permitted"),
        ({"task": "classification", "generation": {"bogus": 1}}, "generation.bogus: Extra inputs"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            configure(values, {})
    assert configure({"task": "classification", "generation": {"samples": 3}}, {}) == Config()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("evaluation: {seeds: [99999999999999999999999]}", "evaluation.seeds.0: Input should be"),
        ("evaluation: {seeds: [-1]}", "evaluation.seeds.0: Input should be"),
        ("evaluation: {init_seed: 4294967296}", "evaluation.init_seed: Input should be"),
        ("evaluation: {resamples: 100000000000}", "evaluation.resamples: Input should be"),
        ("evaluation: 3", "evaluation is a section of names with values, not '3'"),
        ("encoder: [x]", "encoder is a section of names with values"),
        ("task: [x]", "task is one word"),
        ("1: 2", "the name 1 is no text"),
        ("data: &a {features: *a}", "something holds itself (line 1)"),
        ("evaluation: {shots: 1}\nevaluation: {shots: 2}", "evaluation stands there twice"),
        ("encoder: {name: a, name: a}", "name stands there twice (again in line 1)"),
        ("[" * 50_000, "is not valid YAML"),
        ("data: 2026-99-99", "is not valid YAML"),
        ("data: !!int ''", "is not valid YAML: a value is not of the kind that its tag says"),
        ("data: !!bool maybe", "is not valid YAML"),
        ("data: !!timestamp x", "is not valid YAML"),
    ],
)
def test_what_a_file_cannot_mean_is_one_sentence_of_every_verb(tmp_path, text, said):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    # photos: the file is read before they are looked for
    for verb in (
        lambda: configure(file, {}),
        lambda: package.train(tmp_path, config=file),
        lambda: package.sweep([FEATURES], config=file, out=tmp_path / "s"),
    ):
        with pytest.raises(UserError, match=re.escape(str(file))) as caught:
            verb()
        assert said in str(caught.value)


def train(out: Path, **options) -> package.Results:
    given = {"shots": 4, "seeds": [1], "baselines": ["fast"], "features": FEATURES}
    return package.train(**given | options, out=out)


def test_a_run_fed_back_gives_the_same_table(tmp_path):
    first = train(tmp_path / "a")
    again = package.train(config=tmp_path / "a" / "config.yaml", out=tmp_path / "b")
    assert [m.seeds for m in again.methods] == [m.seeds for m in first.methods]
    changed = package.train(
        config=tmp_path / "a" / "config.yaml", shots=2, out=tmp_path / "c",
        settings={"evaluation.resamples": 0},
    )  # fmt: skip
    assert changed.details["shots"] == 2
    assert not changed.intervals


def test_a_run_ends_with_tables_card_and_report(tmp_path):
    results = train(tmp_path / "run")
    tables = json.loads((tmp_path / "run" / "results.json").read_text())["tables"]
    assert [row["name"] for row in tables["classification"]["methods"]] == [
        method.name for method in results.methods
    ]
    about = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    card = (tmp_path / "run" / "README.md").read_text()
    for name, weights in about["table"].items():
        cells = " | ".join(f"`{weight:.4g}`" for weight in weights)
        assert f"| {name} | {cells} |" in card
    assert results.to_markdown() in card
    assert "Test images: base 20, new 20." in card
    assert "generation" not in yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    model = package.Classifier.load(tmp_path / "run")
    assert model.classes_.tolist() == about["class_names"]


def test_what_is_refused_or_fails_costs_nothing_of_a_finished_run(tmp_path, monkeypatch):
    from aape.adapter.classification import evaluate

    out = tmp_path / "run"
    train(out, baselines=["none"], settings=QUICK)

    def files() -> dict[str, bytes]:
        names = (str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
        return {n: (out / n).read_bytes() for n in names if not n.startswith("work")}

    finished = files()
    assert finished.keys() >= {"report.html", "README.md", "results.json", "config.yaml"}
    for bad in (
        {"baselines": ["foo"]},
        {"device": "cuda:77"},
        {"shots": 11},
        {"seeds": [10**22]},
        {"protocol": "domain", "target": ["nowhere.safetensors"]},
        {"control": ["foo"]},
        {"protocol": "incremental"},
        {"unlabelled": FEATURES, "semi": True, "shots": 99},
    ):
        with pytest.raises(UserError):
            train(out, **{"baselines": ["none"], "settings": QUICK} | bad)
        assert files() == finished, bad
    with pytest.raises(UserError, match="foo"):
        package.eval_classification(out, baselines=["foo"])
    assert files() == finished
    # a training that fails, and one that is done before the folder is written
    monkeypatch.setattr(evaluate, "_train_and_test", _fail)
    with pytest.raises(UserError, match="stopped"):
        train(out, shots=2, baselines=["none"], settings=QUICK)
    assert files() == finished
    monkeypatch.undo()
    changed = train(out, shots=2, baselines=["none"], settings=QUICK)
    assert changed.details["shots"] == 2
    now = files()
    assert now.keys() == finished.keys()
    assert all(now[name] != finished[name] for name in ("config.yaml", "report.html", "README.md"))


def test_what_another_configuration_led_to_goes_with_the_first_product(tmp_path):
    from aape.adapter.run import RunFolder

    train(tmp_path / "run", baselines=["none"], settings=QUICK)
    kept = {p.name for p in (tmp_path / "run" / "work").iterdir()}
    run = RunFolder(tmp_path / "run")
    tensors, about = run.load_weights()
    other = Config.from_yaml(run.path / "config.yaml").model_copy(update={"encoder": LITE})
    run.start(other, ["classification"])
    assert (run.path / "report.html").exists()
    run.save_weights(tensors, about)
    left = {p.name for p in run.path.iterdir()}
    assert not left & {"report.html", "README.md", "results.json"}
    assert not list((run.path / "results").iterdir())
    assert Config.from_yaml(run.path / "config.yaml") == other
    assert {p.name for p in (run.path / "work").iterdir()} == kept, "no work is lost"


def _fail(*_, **__):
    raise UserError("stopped")


def test_a_failed_run_leaves_no_folder(tmp_path, monkeypatch):
    from aape.adapter.classification import evaluate

    with pytest.raises(UserError, match="99 shots"):
        train(tmp_path / "runs" / "a", shots=99)
    assert not (tmp_path / "runs").exists()
    # what was finished before the failure stays
    whole = evaluate._train_and_test

    def second_fails(method, *rest):
        if method.group == "baseline":
            raise UserError("stopped")
        return whole(method, *rest)

    monkeypatch.setattr(evaluate, "_train_and_test", second_fails)
    with pytest.raises(UserError, match="stopped"):
        train(tmp_path / "runs" / "a")
    assert list((tmp_path / "runs" / "a" / "work").glob("*.safetensors"))
    shutil.rmtree(tmp_path / "runs")


def test_same_images_for_all_seeds_have_no_deviation(tmp_path):
    results = train(tmp_path / "run", shots=6, seeds=[1, 2])  # all six of each class
    assert results.details["same_images"]
    assert any("All seeds have the same training images" in note for note in results.notes)
    assert "± 0.00" not in results.to_markdown()
    assert not train(tmp_path / "other", seeds=[1, 2]).details["same_images"]

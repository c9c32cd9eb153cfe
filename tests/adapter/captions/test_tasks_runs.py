"""The run folder of the caption tasks, and the verbs that work on it."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from fake_captions import FakeDataset
from fakes import ColourEncoder
from rich.console import Console
from typer.testing import CliRunner

from aape import cli
from aape.adapter.captions import run as caption_run
from aape.adapter.captions.run import evaluate_run, run_captions
from aape.adapter.captions.settings import (
    CAPTIONS_CONFIG,
    CaptionConfig,
    CaptioningConfig,
    CaptionRunConfig,
    VqaConfig,
)
from aape.adapter.commands.print_results import print_results
from aape.adapter.results import MethodResult, Results
from aape.adapter.run import RunFolder
from aape.pipeline.config import EncoderConfig
from aape.pipeline.errors import UserError


def test_train_then_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    data = FakeDataset(tmp_path)
    monkeypatch.setattr(caption_run, "open_dataset", lambda name, root=None: data)
    for name in ("load_encoder", "open_encoder"):
        monkeypatch.setattr(caption_run, name, lambda *_: ColourEncoder())
    config = CaptionRunConfig(
        dataset="fake",
        encoder=EncoderConfig(name="fake"),
        captions=CaptionConfig(epochs=3, batch_size=8, lr=0.01),
        seeds=[1, 2],
    )
    trained = run_captions(config, tmp_path / "run")
    assert [row["seed"] for row in trained.method("h(x)").seeds] == [1, 2]
    results = evaluate_run(tmp_path / "run", "retrieval", limit=8)
    assert [row["seed"] for row in results.method("h(x)").seeds] == [1, 2]
    assert (tmp_path / "run" / "results" / "retrieval.md").exists()
    # the folder of a suite is configured by classification, and holds the other beside
    (tmp_path / "run" / "config.yaml").rename(tmp_path / "run" / CAPTIONS_CONFIG)
    (tmp_path / "run" / "config.yaml").write_text("recipe: {}\n")
    found, adapters = caption_run.open_adapters(RunFolder(tmp_path / "run"))
    assert (found.dataset, found.seeds, len(adapters)) == ("fake", [1, 2], 2)


def test_other_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        evaluate_run(tmp_path, "retrieval")
    (tmp_path / "config.yaml").write_text("recipe: {}\n")
    with pytest.raises(UserError, match="was not trained on captions"):
        evaluate_run(tmp_path, "vqa")
    RunFolder(tmp_path).start(CaptionRunConfig(dataset="shapes"))
    with pytest.raises(UserError, match="has no adapter trained on captions"):
        evaluate_run(tmp_path, "captioning")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--task", "captions"], "--dataset shapes"),
        (["train", "--task", "caption", "--dataset", "shapes"], "Did you mean 'captions'?"),
        (["train", "--task", "captions", "--dataset", "shape"], "Did you mean 'shapes'?"),
        (["eval", "vqa", "nowhere"], "aape train-captions"),
    ],
)
def test_bad_command_lines(aape, arguments: list[str], said: str, tmp_path: Path) -> None:
    done = aape(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())


def test_settings_that_cannot_be_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shots"):
        VqaConfig.parse({"shots": [-1]}, "What was set")
    with pytest.raises(UserError, match="train_on"):
        VqaConfig.parse({"train_on": "nothing"}, "What was set")
    with pytest.raises(UserError, match=r"decode\.strategy"):
        CaptioningConfig.parse({"decode": {"strategy": "best"}}, "What was set")


def test_pairs_with_several_minuends_are_lines_below_the_table() -> None:
    def printed(intervals: dict[str, dict[str, list[float]]]) -> str:
        methods = [MethodResult("a", [{"R": 1.0}]), MethodResult("b", [{"R": 2.0}])]
        console = Console(width=120, record=True, file=StringIO())
        results = Results("t", "p/1", "d", "e", ["R"], methods, "R", intervals=intervals)
        print_results(results, console)
        return console.export_text()

    assert "b minus it, R" in printed({"b - a": {"R": [-1.0, 2.0]}})
    two = printed({"b - a": {"R": [-1.0, 2.0]}, "c - a": {"R": [3.0, 4.0]}})
    assert "minus it" not in two
    assert "b - a: -1.00 to +2.00 (R, 95 % interval)" in two
    assert "c - a: +3.00 to +4.00" in two


def test_figures_stay_whole_on_a_narrow_terminal() -> None:
    names = ["add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "mean"]
    methods = [MethodResult("x (zero-shot)", [dict.fromkeys(names, 100.0)])]
    console = Console(width=80, record=True, file=StringIO())
    print_results(Results("t", "p/1", "d", "e", names, methods, "mean"), console)
    lines = console.export_text().splitlines()
    assert sum(line.count("100.00") for line in lines) == len(names)
    assert all(len(line) <= 80 for line in lines)
    assert "…" not in "".join(lines)


@pytest.mark.parametrize(("verb", "config"), [("captioning", CaptioningConfig), ("vqa", VqaConfig)])
def test_options_reach_the_settings(verb: str, config: type, monkeypatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def watch(path: Path, task: str, *, settings: dict[str, Any], **_: object) -> Results:
        asked.update(settings, task=task)
        return Results("t", "p/1", "d", "e", ["R"], [MethodResult("a", [{"R": 1.0}])], "R")

    monkeypatch.setattr(caption_run, "evaluate_run", watch)
    words = ["eval", verb, str(tmp_path), "--steps", "7", "--grid", "3", "--aape-tokens", "4"]
    assert CliRunner().invoke(cli.app, words).exit_code == 0
    assert asked.pop("task") == verb
    made = config.parse(asked, "test")
    assert (made.steps, made.grid, made.aape_tokens) == (7, 3, 4)

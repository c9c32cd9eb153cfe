"""What is typed reaches the verb as it was meant, and what it returns is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import aape.adapter.explain.classes as explained
from aape import cli
from aape.adapter.commands.print_explanation import print_explanation
from aape.adapter.results import MethodResult, Results
from aape.adapter.serve.limits import Limits
from aape.pipeline.errors import UserError


@pytest.fixture(scope="module")
def command() -> Any:
    return get_command(cli.app)  # once: there are many verbs


@pytest.fixture
def run(command: Any, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        assert (command.main(list(words), "aape", standalone_mode=False) or 0) == status
        return capsys.readouterr().out

    return call


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], list[dict[str, Any]]]:
    """Put a verb's place-holder: it notes what it is given and returns what it is told to."""

    def hold(place: str, answer: Any) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def verb(*given: Any, **named: Any) -> Any:
            calls.append({**dict(enumerate(given)), **named})
            return answer

        monkeypatch.setattr(f"aape.adapter.{place}", verb)
        return calls

    return hold


def table(dataset: str) -> Results:
    rows = [MethodResult("zero-shot", [{"seed": 1, "accuracy": 50.0}])]
    return Results("classification", "fewshot/1", dataset, "lite", ["accuracy"], rows)


@pytest.mark.parametrize(
    ("shots", "wanted"), [("0", [0]), ("0,2,all", [0, 2, "all"]), ("", []), (" 4 ,", [4])]
)
def test_no_number_of_shots_of_a_sweep_is_lost(run, called, shots: str, wanted: list) -> None:
    calls = called("classification.verbs.sweep", [])
    run("sweep", "a.parquet", "b.parquet", "--shots", shots, "--seeds", "0,3", "--recipes", "a,b")
    assert calls[0][0] == ["a.parquet", "b.parquet"]
    assert calls[0][1] == wanted
    assert (calls[0][2], calls[0][3]) == ([0, 3], ["a", "b"])


def test_a_sweep_of_one_source_prints_no_average(run, called) -> None:
    called("classification.verbs.sweep", [table("cars"), table("average of 1")])
    assert "average of" not in run("sweep", "a.parquet")
    assert "average of" in run("sweep", "a.parquet", "b.parquet")
    found = json.loads(run("sweep", "a.parquet", "--json"))
    assert [one["dataset"] for one in found] == ["cars", "average of 1"]


def test_export_has_one_place_to_write_to(run, called) -> None:
    calls = called("export.export", Path("made"))
    assert run("export", "r", "--onnx", "x.onnx") == "made\n"
    assert json.loads(run("export", "r", "--format", "torch", "-o", "x.pt", "--json")) == {
        "format": "torch",
        "path": "made",
    }
    assert [(one[1], one["format"]) for one in calls] == [
        (Path("x.onnx"), "onnx"),
        (Path("x.pt"), "torch"),
    ]
    for words, said in [
        (["--onnx", "x", "--out", "y"], "stands alone"),
        (["--onnx", "x", "--format", "torch"], "stands alone"),
        ([], "Where to"),
    ]:
        with pytest.raises(UserError, match=said):
            run("export", "r", *words)


def test_the_suites_are_listed_and_the_demo_is_one(run, called) -> None:
    assert "embedded-fast: " in run("suites")
    known = json.loads(run("suites", "--json"))
    assert {"embedded", "embedded-fast", "paper"} <= known.keys()
    assert known["embedded"]["jobs"]
    calls = called("suite.verbs.eval_all", [table("shapes")])
    (found,) = json.loads(run("demo", "--fast", "--out", "o", "--json"))
    assert found["dataset"] == "shapes"
    assert (calls[0][0].name, calls[0][1]) == ("embedded-fast", Path("o"))
    assert f"Report: {Path('o') / 'embedded' / 'report.html'}" in run("demo", "--out", "o")
    run("eval", "all", "--set", "caption_seeds=7,8", "--json")
    assert calls[2][0].caption_seeds == [7, 8]


def test_what_a_server_allows_is_checked_before_it_starts(run, called) -> None:
    calls = called("serve.serve", None)
    run("serve", "r", "--port", "0", "--megabytes", "2", "--batch", "4")
    assert calls[0]["limits"] == Limits(megabytes=2, batch=4)
    assert calls[0]["port"] == 0
    with pytest.raises(UserError, match="megapixels"):
        run("serve", "r", "--megapixels", "0")
    assert len(calls) == 1


def test_options_are_told_with_their_meaning(run) -> None:
    (row,) = json.loads(run("options", "evaluation.shots", "--json"))
    told = run("options", "evaluation.shots").splitlines()
    assert told[0] == f"evaluation.shots = {row['default']}"
    assert row["meaning"]
    assert " ".join(told[1:]).split() == f"{row['meaning']}; {row['values']}".split()


def test_the_doctor_prints_what_to_mend_and_fails_where_something_is_broken(
    run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from aape.adapter import doctor

    works = doctor.Finding("disk", "works", "9 GB free")
    broken = doctor.Finding("torch", "broken", "no product", "pip install torch")
    monkeypatch.setattr(doctor, "findings", lambda: iter([works, broken]))
    told = run("doctor", status=1).splitlines()
    assert told[0].endswith("disk: 9 GB free")
    assert told[1].endswith("torch: no product")
    assert told[2].strip() == "pip install torch"
    monkeypatch.setattr(doctor, "findings", lambda: iter([works]))
    assert len(run("doctor").splitlines()) == 1


def test_a_class_is_told_with_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    pair = explained.SharedPair("[red]own[/red]", "other", 0.912)
    found = explained.ClassExplanation(
        "[b]owl[/b]", 2, False, 0.5, {},
        [explained.SentenceEffect("has [i]wings[/i]", 1.25, 0.1),
         explained.SentenceEffect("is round", None, 0.0312)],
        [explained.Confusion("cat", 1, 4, [pair]),
         explained.Confusion("dog", 0, 0, [], nearest_text=True)],
        ["a [note]"],
    )  # fmt: skip
    print_explanation(found)
    told = capsys.readouterr().out
    for line in (
        "[b]owl[/b] (class 2, new: no photo of it was trained on)",
        "+1.2500  has [i]wings[/i]",
        "turns 0.0312  is round",
        "Confused with cat: 1 photo of [b]owl[/b] called so, 4 the other way",
        "0.91  [red]own[/red]  ~  other",
        "Confused with dog: nearest by its text",
        "· a [note]",
    ):
        assert line in told


def test_push_and_pull_hand_on_what_is_typed(run, called) -> None:
    from aape.adapter.share import Pushed

    done = Pushed("run", "me/x", "c0ffee", "place")
    pushed, pulled = called("share.push", done), called("share.pull", done)
    assert run("push", "r", "me/x", "--private", "--message", "m") == "place\n"
    assert pushed == [{0: Path("r"), 1: "me/x", "private": True, "message": "m"}]
    words = ["--kind", "bank", "--revision", "v1", "--max-gigabytes", "0.5", "--json"]
    assert json.loads(run("pull", "me/x", "-o", "o", *words)) == done.as_dict()
    assert pulled == [
        {0: "me/x", 1: Path("o"), "kind": "bank", "revision": "v1", "max_gigabytes": 0.5}
    ]


def test_a_dry_run_says_whether_all_is_here(run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Needs:
        complete = False

        def lines(self) -> list[str]:
            return ["bank x: missing"]

    monkeypatch.setattr("aape.adapter.suite.verbs.eval_all", lambda *_, **__: Needs())
    assert run("eval", "all", "--dry-run", status=1) == "bank x: missing\n"
    Needs.complete = True
    run("eval", "all", "--dry-run")

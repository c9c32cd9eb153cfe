"""How the command line begins, speaks and ends: through real processes where it matters."""

from __future__ import annotations

import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from places import REPOSITORY
from rich.console import Console

import aape as package
from aape import cli
from aape.adapter.asked_classes import asked_classes
from aape.adapter.commands.print_comparison import print_comparison
from aape.adapter.commands.print_results import print_results
from aape.adapter.compare import ComparedMethod, Comparison
from aape.adapter.finish import _code
from aape.adapter.predict import NONE, _prediction
from aape.adapter.prediction_file import check_format, write_predictions
from aape.adapter.results import MethodResult, Results
from aape.adapter.run_classes import trained_ids
from aape.pipeline import progress
from aape.pipeline.commands.encoders import encoders_verb
from aape.pipeline.commands.print_bank import print_table
from aape.pipeline.commands.print_datasets import print_list
from aape.pipeline.errors import UserError
from aape.pipeline.terminal import console

SLEEPER = """
import sys, time
from aape import cli

@cli.app.command("sleep")
def sleep():
    print("ready", flush=True)
    time.sleep(60)

cli.main(sys.argv[1:])
"""
IGNORER = """
import os, sys, time
from aape import cli

class Ignores:
    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)

@cli.app.command("sleep")
def sleep(number: int) -> None:
    Ignores(number)
    time.sleep(30)

cli.main(sys.argv[1:])
"""


def ran(capfd, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    out = capfd.readouterr()
    return int(end.value.code or 0), out.out, out.err


@pytest.fixture(autouse=True)
def _signals():
    before, hook = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    yield
    sys.unraisablehook = hook
    signal.signal(signal.SIGTERM, before)


def test_version_help_and_module(capfd):
    assert ran(capfd, "--version") == (0, f"aape {package.__version__}\n", "")
    short, long = ran(capfd, "train", "-h"), ran(capfd, "train", "--help")
    assert short == long
    assert "--set" in short[1]
    command = [sys.executable, "-m", "aape", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"aape {package.__version__}\n"


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped")],
)
def test_an_interrupt_says_how_to_go_on(number, status, word):
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, "sleep"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert (
        said == f"aape: {word}. Run the same command again to go on: what was finished is kept.\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_within_code_that_ignores_errors_is_not_lost(number):
    """Libraries run destructors and callbacks, out of which no exception comes."""
    done = subprocess.run(
        [sys.executable, "-c", IGNORER, "sleep", str(int(number))],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 128 + number
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("go on: what was finished is kept.\n")


def test_a_misspelt_option_is_status_2(capfd):
    status, _, said = ran(capfd, "train", "--bnak", "x")
    assert status == 2
    assert "--bank" in said
    assert ran(capfd, "trian")[0] == 2


def test_colours_are_for_terminals_that_want_them(capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    status, _, said = ran(capfd, "options", "nothing")
    assert (status, said[:5]) == (2, "\033[31m")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in ran(capfd, "options", "nothing")[2]


def test_a_log_says_every_half_a_minute_how_far_the_work_is(capfd, monkeypatch):
    log = console(stderr=True, force_terminal=False)
    monkeypatch.setattr(progress, "_console", log)
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    assert list(progress.track(range(3), "Encoding photos")) == [0, 1, 2]
    with progress.bar() as shown:
        shown.advance(shown.add_task("Reading", total=None), 2)
    lines = capfd.readouterr().err.splitlines()
    assert "Reading 2, 0:00:00 elapsed" in lines
    assert sum(line.startswith("Encoding photos ") and "3/3" in line for line in lines) == 1
    monkeypatch.setattr(progress, "_LINE_EVERY", 30.0)
    assert list(progress.track(range(3), "Encoding photos")) == [0, 1, 2]
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, "the bar at last; rich may end it with an empty line"


def test_quiet_and_verbose_stand_anywhere(capfd):
    assert cli._first(["bank", "-q", "stats", "--", "-v"]) == [
        "--quiet",
        "bank",
        "stats",
        "--",
        "-v",
    ]
    status, _, said = ran(capfd, "options", "nothing", "-v")
    assert status == 2
    assert "Traceback" in said
    assert "Traceback" not in ran(capfd, "options", "nothing")[2]
    progress.speak()


def test_the_old_name_of_train_captions_refuses_what_it_would_not_read(
    capfd, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ["train", "--task", "captions", "--dataset", "shape"]
    status, _, said = ran(capfd, *words, "--shots", "4", "--recipe", "literal")
    assert status == 2
    assert "Training on captions does not read --shots, --recipe." in said
    status, _, said = ran(capfd, *words)
    assert "is now aape train-captions" in said
    assert "Did you mean 'shapes'?" in said
    assert not list(tmp_path.iterdir())


# --- tables ---


def table() -> Results:
    names = ["ours", "ours, no-distillation", "GDA, nearest images", "zero-shot template"]
    rows = [{"base": 80.0 + i, "new": 70.0 + i, "H": 74.5 + i, "100-ECE": 96.0} for i in (0, 1)]
    methods = [MethodResult(name, [dict(row) for row in rows], seconds=1.0) for name in names]
    pairs = {f"ours - {name}": {"H": [-1.0, 12.0]} for name in names[1:]}
    return Results("classification", "base2new/1", "d", "e", ["base", "new", "H", "100-ECE"],
                   methods, "H", intervals=pairs)  # fmt: skip


@pytest.mark.parametrize("width", [34, 50, 80, 120, 200])
def test_no_terminal_breaks_a_name(width):
    console = Console(width=width, record=True, file=StringIO(), force_terminal=True)
    print_results(table(), console)
    lines = console.export_text().splitlines()
    for method in table().methods:
        row = next(line for line in lines if f"│{method.name} " in line)
        assert "75.00" in row, "the metric that ranks is there at any width"
        assert len(row) <= width
    text = " ".join(" ".join(lines).split())
    assert ("not shown here for want of width" in text) == (width < 120)
    assert ("75.00 ± 0.71" in text) == (width >= 50)
    assert ("80.50" in text) == (width >= 80)


def test_what_is_piped_is_whole_and_plain(capfd, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_results(table())
    out = capfd.readouterr().out
    assert "GDA, nearest images    80.50 ± 0.71  70.50 ± 0.71  75.00 ± 0.71  96.00 ± 0.00" in out
    assert not set(out) & set("┃│━─\033")
    assert "-1.00 to +12.00" in out


def _compared() -> None:
    both = {"H": (75.0, 0.7)}
    one = ComparedMethod("ours, " + "long " * 20, both, both, {"H": 0.5}, {"H": (-1.0, 2.0)})
    print_comparison(Comparison("t", "d", "base2new/1", "H", ["H"], [one]), "a" * 30, "b" * 30)


PRINTERS = {
    "results": lambda: print_results(table()),
    "comparison": _compared,
    "datasets": lambda: print_list(package.datasets_list()),
    "encoders": lambda: encoders_verb(everything=True),
    "bank": lambda: print_table(["prompt", "class"], [["a long sentence " * 9, "cat"]], "title"),
}


@pytest.mark.parametrize("name", PRINTERS)
@pytest.mark.parametrize("columns", ["80", "100", ""])
def test_tables_in_a_pipe_are_plain_and_as_wide_as_columns_says(name, columns, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    PRINTERS[name]()
    out = capfd.readouterr().out
    assert not set(out) & set("┃│━─┏└\033")
    longest = max(map(len, out.splitlines()))
    if columns:
        assert longest <= int(columns)
    else:
        assert longest > 80, "whole lines, for grep"


def test_tables_are_made_in_one_place():
    folders = (REPOSITORY / "pipeline" / "commands", REPOSITORY / "adapter" / "commands")
    for path in (path for folder in folders for path in folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "rich.table" not in text, f"{path.name}: use pipeline.terminal.table"


# --- predictions ---


def test_names_that_repeat_are_told_apart_by_class_id(capfd):
    about = {"all_class_names": ["missile", "crane", "missile"], "class_names": ["missile"]}
    assert trained_ids(about | {"class_ids": [2]}) == [2]
    assert trained_ids(about) == [0], "older runs name no ids"
    every = asked_classes(about | {"class_ids": [2]})
    assert [(c.label, c.class_id, c.seen) for c in every] == [
        ("missile (class 0)", 0, -1), ("crane", 1, -1), ("missile (class 2)", 2, 0),
    ]  # fmt: skip
    assert [c.class_id for c in asked_classes(about, ["2", "CRANE"])] == [2, 1]
    assert [c.label for c in asked_classes(about, ["2"], ["owl", "2"])] == ["missile", "owl", "2"]
    said = capfd.readouterr().err
    assert "'CRANE' is taken for the class 'crane'" in said


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet"])
def test_predictions_have_the_format_of_their_name(ending, tmp_path):
    import pandas as pd

    classes = asked_classes({"all_class_names": ["a", "b"], "class_names": []})
    found = [
        _prediction(Path("x.jpg"), classes, [0.75, 0.25], 0.5),
        _prediction(Path("y.jpg"), classes, [0.45, 0.4], 0.5),
    ]
    path = tmp_path / f"labels.{ending}"
    write_predictions(path, found)
    if "json" in ending:
        rows = pd.read_json(path, lines=ending == "jsonl").to_dict("records")
        assert [label["label"] for label in rows[0]["labels"]] == ["a", "b"]
        assert rows[0]["labels"][1]["class_id"] == 1
        assert [label["label"] for label in rows[1]["labels"]] == [NONE]
    else:
        read = pd.read_csv if ending == "csv" else pd.read_parquet
        rows = read(path).to_dict("records")
        assert (rows[0]["path"], rows[0]["label_1"], rows[0]["p_2"]) == ("x.jpg", "a", 0.25)
        assert (rows[1]["label_1"], rows[1]["p_1"]) == (NONE, 0.45)
        assert pd.isna(rows[1]["label_2"])
    with pytest.raises(UserError, match="must end in"):
        check_format(tmp_path / "labels.txt")


def test_a_run_of_captions_is_told_what_it_is(tmp_path):
    (tmp_path / "config.yaml").write_text("task: captions\ndataset: shapes\n")
    for use in (
        lambda: package.predict(tmp_path, []),
        lambda: package.explain(tmp_path, "x.jpg"),
        lambda: package.extend(tmp_path, "new.bank.parquet"),
        lambda: package.export(tmp_path, format="folder", out=tmp_path / "out"),
        lambda: package.open_model(tmp_path),
        lambda: package.Classifier.load(tmp_path),
    ):
        with pytest.raises(UserError, match="trained on captions: it has no classes"):
            use()


def test_a_name_cannot_leave_its_code_in_a_model_card():
    assert _code("a`b | <script>\n# c") == "`a'b / <script> # c`"

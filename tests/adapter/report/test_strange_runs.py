"""Runs of strangers whose files say odd things: a report of them, or one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import PixelEncoder
from small_runs import small_run

from aape.adapter.curves import write_curves
from aape.adapter.finish import finish_run
from aape.adapter.results import MethodResult, Results
from aape.adapter.run import RunFolder
from aape.pipeline.errors import UserError


def table(shots: Any = 4, dataset: str = "small", **details: Any) -> Results:
    rows = [
        MethodResult("ours", [{"seed": 1, "accuracy": 50.0}], "ours"),
        MethodResult("zero-shot", [{"seed": 1, "accuracy": 40.0}]),
    ]
    return Results(
        "classification", "fewshot/1", dataset, "x", ["accuracy"], rows, "accuracy",
        details={"shots": shots, **details},
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = small_run(tmp_path / "run", PixelEncoder())
    made.save_results(table())
    return made


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    content.pop("sha256", None)
    path.write_text(json.dumps(content | values))


ADAPTERS = [
    *[{"recipe": value} for value in ("x", 5, [1], True)],
    *[{"table": {"zero-shot": pair}} for pair in (["x", "y"], [None, 1], [10**400, 1], [[1], 1])],
    *[{"bank": name, "bank_sha256": "x"} for name in ("a" * 300 + ".parquet", "a/" * 3000, "a\0")],
    {"class_text": 5}, {"class_text": {"share": "all"}}, {"class_names": 5},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ADAPTERS)))
def test_an_adapter_that_says_odd_things_is_reported(run: RunFolder, number: int) -> None:
    change(run.path / "adapter_config.json", **ADAPTERS[number])
    finish_run(run)
    assert (run.path / "report.html").is_file()


LOGS = [
    b"\xff\xfe", b"[" * 100_000, b'{"cross_entropy":1,"epoch":1e400}',
    b'{"cross_entropy":1' + b"0" * 400 + b',"epoch":1}', b'{"cross_entropy":1e400,"epoch":1}',
    b'{"cross_entropy":NaN,"epoch":1}', b'{"cross_entropy":1,"epoch":1000000000}',
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(LOGS)))
def test_a_log_that_is_none_is_passed_over(run: RunFolder, number: int) -> None:
    sound = b'\n{"cross_entropy":1.5,"epoch":1}\n{"cross_entropy":1.0,"epoch":2}\n'
    (run.path / "metrics.jsonl").write_bytes(LOGS[number] + sound)
    finish_run(run)
    assert "Cross-entropy" in (run.path / "report.html").read_text(encoding="utf-8")


TABLES = [
    {"methods": []}, {"metrics": []}, {"intervals": {"ours - zero-shot": {"accuracy": [1]}}},
    {"intervals": {"ours - zero-shot": {"accuracy": [1, 2, 3]}}},
    {"methods": [{"name": "ours", "seeds": [{"accuracy": 10**400}]}]},
    *[{"details": {"shots": shots}} for shots in ([1], "all", "x", {}, 10**400)],
    *[{"methods": [{"name": "ours", "group": "ours", "seeds": [{"accuracy": 1.0}],
                    "details": {part: value}}]}
      for part in ("confusion", "reliability") for value in (5, [1], "x")],
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(TABLES)))
def test_a_table_that_says_odd_things_is_one_sentence(run: RunFolder, number: int) -> None:
    change(run.results_path("classification"), **TABLES[number])
    with pytest.raises(UserError, match="table"):
        finish_run(run)


def test_all_shots_and_some_stand_in_one_report(run: RunFolder, tmp_path: Path) -> None:
    other = small_run(tmp_path / "run" / "all", PixelEncoder())
    other.save_results(table("all", images_a_class=7.5))
    finish_run(run)
    assert "against the number of shots" in (run.path / "report.html").read_text(encoding="utf-8")


def test_curves_of_a_data_set_with_a_path_for_a_name_stay_in_their_folder(tmp_path: Path) -> None:
    name = "x/../../../escaped"
    out = tmp_path / "a" / "b"
    made = write_curves([table(1, name), table(2, name)], out)
    assert made[0].parent == out
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert sorted(path.suffix for path in out.iterdir()) == [".csv", ".svg"]

"""The results table and the report made of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aape.adapter.report import Stage, report_run, write_report
from aape.adapter.results import MethodResult, Results
from aape.pipeline.errors import UserError


def table(**changes) -> Results:
    values = {
        "task": "classification",
        "protocol": "base2new/1",
        "dataset": "shapes",
        "encoder": "lite",
        "metrics": ["base", "new", "H"],
        "best": "H",
        "units": {"H": "%"},
        "methods": [
            MethodResult("zero-shot", [{"seed": 0, "base": 60.0, "new": 40.0, "H": 48.0}]),
            MethodResult(
                "ours",
                [{"seed": 0, "base": 80.0, "H": 60.0}, {"seed": 1, "base": 90.0, "H": 64.0}],
                group="ours",
                note="two seeds",
            ),
        ],
    }
    return Results(**(values | changes))


def test_mean_and_sample_deviation_by_hand():
    ours = table().method("ours")
    assert ours.mean("base") == 85.0
    assert ours.std("base") == pytest.approx(math.sqrt(50))
    assert math.isnan(ours.mean("new"))
    assert table().method("zero-shot").std("H") == 0.0


def test_markdown_marks_the_best_and_keeps_the_notes():
    text = table().to_markdown()
    assert "| **ours** | 85.00 ± 7.07 | – | 62.00 ± 2.83 |" in text
    assert "| zero-shot | 60.00 | 40.00 | 48.00 |" in text
    assert "- ours: two seeds" in text


def test_latex_and_csv_have_a_row_each():
    results = table(metrics=["R@1_%", "H"])
    assert r"R@1\_\%" in results.to_latex()
    assert len(table().to_csv().splitlines()) == 1 + 3


def test_saved_table_reads_back_equal(tmp_path):
    path = tmp_path / "classification.json"
    table().save(path)
    assert Results.load(path) == table()


def test_unknown_schema_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"schema": 99}')
    with pytest.raises(UserError, match="schema"):
        Results.load(path)


def test_a_run_of_several_tasks_names_data_row_and_order(tmp_path):
    samples = [{"image": "", "truth": "a", "output": "b", "good": good} for good in (1, 0, 0)]
    for task, dataset in (("vqa", "daquar"), ("captioning", "nocaps"), ("retrieval", "coco")):
        made = table(task=task, dataset=dataset, samples=samples, details={"samples": "row 7"})
        made.save(tmp_path / dataset / "results" / f"{task}.json")
    _, path = report_run(tmp_path)
    page = path.read_text(encoding="utf-8")
    places = [page.index(f"{name} · protocol") for name in ("coco", "nocaps", "daquar")]
    assert places == sorted(places)
    assert page.count("Samples of row 7: 1 good (green), 2 bad (red)") == 3


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_text_from_models_and_users_cannot_become_markup(text):
    import tempfile
    from pathlib import Path

    hostile = f"<script>alert(1)</script>{text}"
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.png"
        Image.new("RGB", (8, 8), "teal").save(image)
        results = table(
            dataset=hostile,
            notes=[hostile],
            samples=[{"image": str(image), "truth": hostile, "output": [hostile, "b"]}],
            details={"per_class": {hostile: 12.5}},
            intervals={hostile: {"H": [-1.0, 2.0]}},
        )
        path = write_report(
            Path(folder) / "report.html",
            [results],
            title=hostile,
            stages=[Stage(hostile, 3.0, hostile)],
            prompts=[(hostile, [hostile])],
            environment={"command": [hostile]},
        )
        page = path.read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count("data:image/png;base64,") == 1
    assert "no difference shown" in page

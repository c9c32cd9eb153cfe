"""The results table and the report made of it."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
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


def detailed(name: str = "cat", test: str = "base") -> dict:
    """Details of a method as a run of classification keeps them."""
    return {
        "ece": [3.0],
        "per_class": {test: {f"0 {name}": 12.5, "1 dog": 75.0}},
        "confusion": {test: {"most_confused": [[name, "dog", 7]], "matrix": [[1, 7], [2, 6]]}},
        "reliability": {
            "after": {"images": [10, 6], "confidence": [40.0, 90.0], "accuracy": [50.0, 83.3]},
            "before": {"images": [16], "confidence": [99.0], "accuracy": [60.0], "ece": [39.0]},
        },
    }


def full_table() -> Results:
    results = table()
    results.methods[1].details = detailed()
    results.methods[1].seeds = [{"seed": 0, "base": 80.0, "new": 70.0, "H": 74.67}]
    results.methods.append(
        MethodResult("CLIP (published)", [{"base": 91.0, "new": 97.0, "H": 94.0}], "published")
    )
    return results


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


def test_a_name_is_no_markup(tmp_path):
    results = table()
    results.methods[0].name = r"\input{/a}~^$|"
    expected = r"\textbackslash{}input\{/a\}\textasciitilde{}\textasciicircum{}\$|"
    assert f"{expected} & $" in results.to_latex()
    assert r"\input{/a}~^$\|" in results.to_markdown()


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
    assert page.count("Samples of row 7: 1 right, 2 wrong") == 3


@settings(deadline=None, max_examples=8)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_text_from_models_and_users_cannot_become_markup(text):
    import tempfile

    hostile = f"<script>alert(1)</script>{text}"
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.png"
        Image.new("RGB", (8, 8), "teal").save(image)
        results = table(
            dataset=hostile,
            notes=[hostile],
            samples=[{"image": str(image), "truth": hostile, "output": [hostile, "b"]}],
            intervals={hostile: {"H": [-1.0, 2.0]}},
        )
        results.methods[1].details = detailed(hostile)
        path = write_report(
            Path(folder) / "report.html",
            [results],
            title=hostile,
            stages=[Stage(hostile, 3.0, hostile)],
            prompts=[(hostile, [hostile])],
            environment={"command": [hostile]},
            root=folder,
            about={
                "terms": [{"name": hostile, "seen": 1.0, "new": 0.5}],
                "provenance": [(hostile, hostile)],
                "bank": {"rows": [(hostile, hostile)], "verdicts": [(hostile, 3)]},
                "training": {hostile: [(1.0, 2.0, 0.1), (2.0, 1.0, 0.1)]},
                "configuration": hostile,
            },
        )
        page = path.read_text(encoding="utf-8")
    assert "<script" not in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)
    assert page.count("data:image/png;base64,") == 1
    assert "no difference shown" in page


def test_accuracy_by_class_is_found_where_a_run_keeps_it(tmp_path):
    page = write_report(tmp_path / "r.html", [full_table()], title="t").read_text()
    assert "Accuracy by class: base (2 classes, worst first)" in page
    assert page.index("12.5</td>") < page.index("75.0</td>")


def test_figures_stand_side_by_side_without_sharing_an_id(tmp_path):
    page = write_report(tmp_path / "r.html", [full_table(), full_table()], title="t").read_text()
    assert page.count("<svg") == 2 * 4, "base against new, two reliabilities, confusion"
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for name in re.findall(r"url\(#([^)]+)\)", page) + re.findall(r'href="#([^"]+)"', page):
        assert name in ids
    assert ">base (%)</text>" in page, "text stays text"
    assert "before calibration: ECE 39.0" in page
    assert "CLIP (published)</text>" in page


def test_nothing_is_asked_of_the_network(tmp_path):
    page = write_report(tmp_path / "r.html", [full_table()], title="t").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    assert not re.search(r"url\((?!#)", page)


def photo(path: Path, kind: str = "PNG") -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (300, 200), "teal").save(path, format=kind)
    return path


def test_only_photos_of_the_data_set_get_a_thumbnail(tmp_path):
    data, secret = tmp_path / "data", photo(tmp_path / "private" / "secret.png")
    inside = photo(data / "a.jpg", "JPEG")
    (data / "link.png").symlink_to(secret)
    drawing = data / "drawing.png"
    Image.new("RGB", (9, 9)).save(drawing, format="EPS")
    shown = [inside, secret, data / "link.png", data / ".." / "private" / "secret.png", drawing]
    samples = [{"image": str(path), "truth": path.name, "good": True} for path in shown]
    page = write_report(
        tmp_path / "r.html", [table(samples=samples)], title="t", root=data
    ).read_text()
    assert page.count("data:image/") == 1
    assert "4 photos are not shown" in page
    elsewhere = write_report(tmp_path / "r.html", [table(samples=samples)], title="t")
    assert "data:image/" not in elsewhere.read_text(), "a table names no folder by itself"


def test_wrong_photos_stand_beside_right_ones(tmp_path):
    samples = [{"truth": "a", "output": "b", "good": good} for good in (False, True, False, True)]
    page = write_report(tmp_path / "r.html", [table(samples=samples)], title="t").read_text()
    assert page.count('<div class="pair">') == 2
    pair = page[page.index('<div class="pair">') :]
    assert pair.index("✗ wrong") < pair.index("✓ right")


_MEASURE = """<!doctype html><body><script>
const page = PAGE, widths = [1280, 768, 390], found = {};
let left = widths.length;
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.onload = () => {
    const d = frame.contentDocument, root = d.documentElement;
    const wide = [...d.querySelectorAll("main *")].filter(e => !e.closest("svg")
      && !e.closest(".scroll") && !e.closest("details:not([open])")
      && e.getBoundingClientRect().right > width + 1).map(e => e.tagName + "." + e.className);
    const cut = [...d.querySelectorAll("table.results td.ranks")].filter(e =>
      e.getBoundingClientRect().right > e.closest(".scroll").getBoundingClientRect().right + 1);
    found[width] = {
      overflow: root.scrollWidth - width, wide: wide, cut: cut.length,
      main: d.querySelectorAll("main, header, nav, footer").length,
      captions: [...d.querySelectorAll("table")].filter(t => !t.caption).length,
      scopes: d.querySelectorAll("th:not([scope])").length,
      unnamed: d.querySelectorAll("svg:not([aria-label]), img:not([alt])").length,
      background: getComputedStyle(d.body).backgroundColor,
    };
    if (--left == 0) document.title = JSON.stringify(found);
  };
  frame.srcdoc = page;
  document.body.append(frame);
}
</script></body>"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a browser: apt install chromium")
@pytest.mark.parametrize("columns", [3, 12])
def test_a_browser_shows_it_whole_at_every_width(tmp_path, columns):
    results = full_table()
    results.metrics = ["base", "new", "H", *[f"target {i}" for i in range(columns - 3)]]
    results.methods[0].name = "a method with a rather long name, and then some, no-distillation"
    for method in results.methods:
        for row in method.seeds:
            row.update({f"target {i}": 12.34 for i in range(columns - 3)})
    text = write_report(tmp_path / "r.html", [results], title="A run").read_text()
    measured = tmp_path / "measure.html"
    safe = json.dumps(text).replace("</", "<\\/")
    measured.write_text(_MEASURE.replace("PAGE", safe), encoding="utf-8")
    done = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000", "--dump-dom",
            measured.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title, done.stderr[-2000:]
    found = json.loads(title[1].replace("&quot;", '"').replace("&amp;", "&"))
    for width, page in found.items():
        assert page["overflow"] <= 0, (width, page)
        assert page["wide"] == [], (width, page)
        assert page["cut"] == 0, (width, page)
        assert page["main"] == 4
        assert page["captions"] == page["scopes"] == page["unnamed"] == 0

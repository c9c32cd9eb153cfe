"""The examples of docs/extend.md run as they are written."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from places import REPOSITORY

from aape.adapter.baselines import BASELINES
from aape.pipeline.errors import UserError


def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / "docs" / "extend.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict = {"FEATURES": REPOSITORY / "tests" / "golden" / "golden.safetensors"}
    try:
        for i, block in enumerate(blocks):
            exec(compile(block, f"docs/extend.md, block {i + 1}", "exec"), names)
    finally:
        BASELINES.pop("nearest mean", None)
    assert len(blocks) >= 5
    assert names["model"].score(names["x"], names["y"]) > 0.8
    logits = names["adapter"].logits(names["torch"].as_tensor(names["x"]))
    assert logits.requires_grad
    results = names["results"]
    assert [method.name for method in results.methods if method.group == "baseline"] == [
        "nearest mean"
    ]
    assert 0 < results.method("nearest mean").mean("H") <= 100
    assert "ours - nearest mean" in results.intervals
    for name in ("results.json", "README.md", "report.html", "config.yaml"):
        assert (tmp_path / "runs" / "mine" / name).stat().st_size > 100
    assert "nearest mean" in (tmp_path / "runs" / "again" / "README.md").read_text()


@pytest.mark.parametrize("name", ["zero-shot template", "a, b", "", " x"])
def test_names_of_baselines_that_cannot_be(name):
    from aape import add_baseline

    with pytest.raises(UserError):
        add_baseline(name, lambda data, seed: lambda x, classes: x)


class _Flat:
    """A predictor whose logits are one long row."""

    def logits(self, x, classes):
        return (x @ classes.template.T).flatten()


def _constant(found):
    return lambda data, seed: found


def _fitted(name: str, found):
    from aape import add_baseline
    from aape.adapter.baselines import BASELINES

    before = dict(BASELINES)
    add_baseline(name, _constant(found))
    (entry,) = (BASELINES[one] for one in BASELINES.keys() - before.keys())
    return entry.fit(None, 1)  # type: ignore[arg-type]


def test_wrong_logits_of_a_baseline_name_it_and_the_shape_that_is_wanted():
    x, classes = torch.ones(5, 3), SimpleNamespace(template=torch.ones(4, 3))
    right = _fitted("right logits", lambda x, classes: x @ classes.template.T)
    assert right.logits(x, classes).shape == (5, 4)  # type: ignore[arg-type]
    assert (right.parameters, right.chosen) == (0, {})
    wrong = {
        r"\(20,\)": _Flat(),
        r"logits \(4, 5\)": lambda x, classes: classes.template @ x.T,
        "list": lambda x, classes: [[0.0] * 4] * 5,
    }
    for i, (said, found) in enumerate(wrong.items()):
        predictor = _fitted(f"wrong {i}", found)
        with pytest.raises(UserError, match=rf"'wrong {i}' gave .*{said}.*\(5, 4\)"):
            predictor.logits(x, classes)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'no function' gave int instead of a function"):
        _fitted("no function", 3)


def test_a_name_is_added_once():
    from aape import add_baseline

    add_baseline("twice added", _constant(lambda x, classes: x))
    for again in ("twice added", "Twice-added"):
        with pytest.raises(UserError, match="added before"):
            add_baseline(again, _constant(lambda x, classes: x))


def test_a_cell_that_runs_again_adds_its_baseline_again():
    from aape import add_baseline
    from aape.adapter.baselines import BASELINES

    for factor in (1.0, 2.0):

        def scaled(data, seed, factor=factor):
            return lambda x, classes: factor * x @ classes.template.T

        add_baseline("scaled", scaled)
    x, classes = torch.ones(1, 3), SimpleNamespace(template=torch.ones(2, 3))
    fitted = BASELINES["scaled"].fit(None, 1)  # type: ignore[arg-type]
    assert fitted.logits(x, classes).tolist() == [[6.0, 6.0]]  # type: ignore[arg-type]

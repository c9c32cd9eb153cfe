"""The examples of docs/extend.md run as they are written."""

from __future__ import annotations

import re

import pytest
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

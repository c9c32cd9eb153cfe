"""The figures of benchmarks are read as printed, and a ratio within the noise is not marked."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from places import REPOSITORY


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench", REPOSITORY / "benchmarks/__main__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_of_json_and_tables(bench: ModuleType) -> None:
    table = "| size | time | note |\n|---|---|---|\n| 1,000 | 2.5 ms | x |\n"
    text = '{"a": {"b": 2, "ok": true}}\n\n' + table
    assert dict(bench.printed_figures(text)) == {"a.b": 2.0, "1,000, time (ms)": 2.5}


def test_ratios_within_the_noise_are_not_marked(bench: ModuleType) -> None:
    before = {"figures": {"quiet": [1.0, 1.0, 1.01], "loud": [1.0, 2.0, 1.5], "gone": [1.0]}}
    after = {"figures": {"quiet": [1.2, 1.2, 1.21], "loud": [1.9, 1.8, 2.0], "new": [1.0]}}
    quiet, loud = bench.compare(before, after)[2:4]
    assert "1.200 *" in quiet
    assert "1.267 |" in loud
    assert "±33.3%" in loud


def test_every_benchmark_named_is_there(bench: ModuleType) -> None:
    assert all((REPOSITORY / "benchmarks" / f"{name}.py").is_file() for name in bench.SIZES)

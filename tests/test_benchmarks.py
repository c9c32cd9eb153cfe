"""The figures of benchmarks are read as printed, and a ratio within the noise is not marked."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from places import REPOSITORY


def loaded(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "benchmarks" / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return loaded("bench", "__main__.py")


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


def test_a_model_is_fitted_to_small_sizes_and_checked_by_the_largest() -> None:
    model = loaded("scale_model", "scale_model.py")
    measured = {
        n: {"work, s": 1 + n**1.5 / 1e6, "work, own GiB": 0.5, "work, resident GiB": 0.5 + n / 1e6}
        for n in (10_000, 20_000, 40_000)
    }
    measured[40_000]["work, s"] = 16.0  # off the line, which says 9
    head, _, seconds, memory = model.table("bank", measured, {"work, s": "n^1.5"}, 10**6, "rows")
    assert head.startswith("| bank | 10,000 rows | 20,000 rows | 40,000: measured | modelled |")
    cells = [cell.strip() for cell in seconds.strip("|").split("|")]
    assert cells[:6] == ["work, s", "2", "3.83", "16", "9", "n^1.5"]
    assert 1001 < float(cells[6].replace(",", "")) < 2000
    assert memory == (
        "| work, memory, GiB | 0.500 (0.510) | 0.500 (0.520) | 0.500 (0.540) | 0.500 (0.540) | n "
        "| 0.500 (1.5) |"
    )


def test_what_a_clock_says_and_what_has_a_limit_is_measured_alone() -> None:
    model = loaded("scale_model", "scale_model.py")
    measured = {
        n: {"work, s": n / 1e3, "work, clock s": n / 1e2, "work, own GiB": 1.0}
        for n in (10_000, 20_000, 40_000)
    }
    growths = {"work, own": model.NOT_MODELLED}
    *_, seconds, memory = model.table("bank", measured, growths, 10**6, "rows")
    assert seconds == "| work, s | 10 (100) | 20 (200) | 40 (400) | 40 | n | 1,000 |"
    assert memory == "| work, own GiB | 1 | 1 | 1 | – | – | – |"

"""The command that a person with a GPU runs: the same code, small, on this device."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from places import REPOSITORY


@pytest.mark.slow
def test_the_gpu_benchmark_writes_one_json_of_all_its_parts(tmp_path):
    script = REPOSITORY / "benchmarks" / "gpu.py"
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(script), str(out), "--small", "--rounds", "1"]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads(out.read_text())
    assert found["small"]
    assert found["device"]
    figures = found["training"] | found["steps"] | found["encoding"]
    apart = [name for name in figures if "apart" in name]
    assert all(value > 0 for name, value in figures.items() if name not in apart)
    assert all(figures[name] < 1e-3 for name in apart)
    same = [value for name, value in found["agreement"].items() if "share" in name]
    assert same
    assert min(same) > 0.9

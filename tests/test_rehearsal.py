"""The paper's command at its smallest: real layouts, classes and code, to the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from places import REPOSITORY


@pytest.mark.slow
def test_the_smallest_rehearsal_of_the_paper_ends_with_every_row(tmp_path):
    script = REPOSITORY / "benchmarks" / "rehearse" / "run.py"
    command = [sys.executable, str(script), str(tmp_path / "out"), "--smallest", "--contents", "1"]
    done = subprocess.run(
        [*command, "--baselines", "fast", "--encoder", "ViT-B-16-shrunk"],
        capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "out" / "rehearsal.json").read_text())
    assert all(check["passed"] for check in found["checks"])
    assert (tmp_path / "out" / "runs" / "rehearsal" / "report.html").exists()

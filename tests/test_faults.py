"""A slice of ``make faults``; its kinds and its judgement are tried on what must be lost."""

from __future__ import annotations

import subprocess
import sys

import pytest
from places import REPOSITORY


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_a_slice_of_the_faults_loses_nothing(seed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--count", "60", "--seed", str(seed),
         "--command", "import-prompts", "--command", "bank export -f hf",
         "--command", "bank merge"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("60 injected, 60 survived, 0 lost")

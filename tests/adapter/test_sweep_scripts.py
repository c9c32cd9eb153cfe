"""A script that calls a sweep is imported by each process of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

LACKING = "aape: Each process of a sweep runs the script that called it"
SCRIPT = """
import aape
print("at work")
{before}
try:
    aape.sweep(["absent.safetensors"], processes={processes}, seeds=[1, 2], out="out")
except aape.UserError as error:
    print("aape:", error)
"""


def _said(script: str, folder) -> str:
    path = folder / "many.py"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    return done.stdout


@pytest.mark.parametrize("processes", [1, 2])
def test_a_script_without_the_guard_is_told_so_once(processes, tmp_path):
    said = _said(SCRIPT.format(before="", processes=processes), tmp_path)
    assert said.count(LACKING) == 1
    assert 'if __name__ == "__main__":' in said


@pytest.mark.slow
def test_a_script_with_a_guard_of_any_form_sweeps(tmp_path):
    before = "import sys\nif __name__ != '__main__': aape.sweep = lambda *a, **k: None"
    said = _said(SCRIPT.format(before=before, processes=1), tmp_path)
    assert LACKING not in said
    assert "2 of 2 parts of the sweep failed" in said
    assert "absent.safetensors" in said

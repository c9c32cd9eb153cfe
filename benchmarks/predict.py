"""Prediction at ImageNet's size: 50,000 images × 1,000 classes from cached features.

    python benchmarks/predict.py [--images 50000] [--classes 1000]

Times our head with all terms of seen classes, against one matrix product (zero-shot CLIP).
Features are random: only time and memory are measured.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
import torch.nn.functional as F

from aape.adapter.method.problem import ClassSet, FewShot
from aape.adapter.method.recipe import DEFAULT
from aape.adapter.method.train import fit

D = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    options = parser.parse_args()
    torch.manual_seed(0)
    c = options.classes
    w, x = (F.normalize(torch.randn(n, D), dim=-1) for n in (c, options.images))
    classes = ClassSet(w, w, w, w, torch.arange(c))
    mask = torch.ones(c, 1, dtype=torch.bool)
    y = torch.arange(c)
    data = FewShot(x[:c], y, None, classes, w[:, None], mask, x[:0], y[:0], 100.0, 1)
    fitted = fit(data, DEFAULT.model_copy(update={"epochs": 1}), 0)
    fitted.alpha = 0.1
    start = time.perf_counter()
    with torch.no_grad():
        zero_shot = (100.0 * x @ w.T).argmax(1)
    plain = time.perf_counter() - start
    start = time.perf_counter()
    predicted = torch.cat([fitted.logits(part, classes).argmax(1) for part in x.split(4096)])
    ours = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(predicted)} × {c}, {torch.get_num_threads()} threads, peak {peak:.2f} GB")
    print(f"ours {ours:.2f} s, one matrix product {plain:.2f} s, ratio {ours / plain:.1f}")
    print(f"agreement with zero-shot: {(predicted == zero_shot).float().mean():.3f}")


if __name__ == "__main__":
    main()

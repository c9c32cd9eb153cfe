"""Prediction at ImageNet's size: 50,000 images × 1,000 classes from cached features.

    python benchmarks/predict.py [--images 50000] [--classes 1000]

Times the default and the staged recipe with all their terms, against one matrix product (zero-shot
CLIP).
Features are random: only time and memory are measured.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from aape.adapter.method.problem import ClassSet, FewShot
from aape.adapter.method.recipe import DEFAULT, STAGED, Recipe
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
    start = time.perf_counter()
    with torch.no_grad():
        zero_shot = (100.0 * x @ w.T).argmax(1)
    plain = time.perf_counter() - start
    print(f"{len(x)} × {c}, {torch.get_num_threads()} threads, one matrix product {plain:.2f} s")
    for recipe in (DEFAULT, STAGED.model_copy(update={"epochs": 1})):
        measure(recipe, data, x, zero_shot, plain)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak {peak:.2f} GB")


def measure(recipe: Recipe, data: FewShot, x: Tensor, zero_shot: Tensor, plain: float) -> None:
    """Print what a prediction with all terms of a recipe takes."""
    fitted = fit(data, recipe, 0)
    # random features teach nothing, so that training would leave terms out: each counts here
    fitted.table = {term.name: (0.1, 0.1) for term in fitted.terms}
    start = time.perf_counter()
    parts = [fitted.logits(part, data.classes).argmax(1) for part in x.split(4096)]
    seconds = time.perf_counter() - start
    terms = ", ".join(fitted.table)
    agreement = (torch.cat(parts) == zero_shot).float().mean()
    print(
        f"{recipe.name} ({terms}): {seconds:.2f} s, ratio {seconds / plain:.1f},"
        f" agreement with zero-shot {agreement:.3f}"
    )


if __name__ == "__main__":
    main()

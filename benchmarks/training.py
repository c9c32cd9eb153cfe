"""Training time of every method on the same cached features, as ratios of CPU time to ours.

    python benchmarks/training.py FEATURES [--shots 16] [--protocol fewshot]
    python benchmarks/training.py --imagenet IMAGENET_4SHOT     # 16,000 × 1,000

With ``--imagenet`` the 4 images a class are copied with noise to 16: for speed only, no accuracy of
it means anything. Only our recipes and the controls of their parts run then; ``--rows`` picks some.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from aape.adapter.baselines import BASELINES, GROUPS
from aape.adapter.classification.feature_checks import read_features
from aape.adapter.classification.feature_file import FileSource
from aape.adapter.classification.protocols import load_protocol
from aape.adapter.method.problem import ClassSet, FewShot
from aape.adapter.method.recipe import DEFAULT, STAGED, controlled
from aape.adapter.method.train import fit


def imagenet_16_shots(path: Path) -> FewShot:
    """Return 16,000 noisy copies of 4,000 real features, and real class texts."""
    tensors, _ = read_features(path)
    x = torch.from_numpy(tensors["train_4shot.features"].astype(np.float32)).repeat(4, 1)
    y = torch.from_numpy(tensors["train_4shot.labels"].astype(np.int64)).repeat(4)
    w = F.normalize(torch.from_numpy(tensors["class_text.features"].astype(np.float32)), dim=-1)
    torch.manual_seed(0)
    x = F.normalize(x + 0.02 * torch.randn_like(x), dim=-1)
    prompts = F.normalize(w[:, None] + 0.02 * torch.randn(len(w), 50, w.shape[1]), dim=-1)
    mask = torch.ones(prompts.shape[:2], dtype=torch.bool)
    classes = ClassSet(w, w, w, w, torch.arange(len(w)))
    return FewShot(x, y, None, classes, prompts, mask, x[:0], y[:0], 100.0, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("features", type=Path)
    parser.add_argument("--imagenet", action="store_true")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--protocol", default="fewshot")
    parser.add_argument("--rows", default="", help="methods by their printed names; all by default")
    options = parser.parse_args()
    if options.imagenet:
        data = imagenet_16_shots(options.features)
    else:
        draw = FileSource(options.features).draw(options.shots, 0)
        data = draw.few_shot(load_protocol(options.protocol).trained_ids(draw))
    print(f"{len(data.x)} images, {len(data.w)} classes, {torch.get_num_threads()} threads")
    rows = {"ours": lambda: fit(data, DEFAULT, 0)}
    for control in ("no-shared-map", "no-whitening"):
        recipe = controlled(DEFAULT, control)
        rows[f"ours, {control}"] = lambda recipe=recipe: fit(data, recipe, 0)
    rows["staged recipe"] = lambda: fit(data, STAGED, 0)
    if not options.imagenet:
        for name, baseline in BASELINES.items():
            if name in (*GROUPS["slow"], *rows):  # cached features have no text tower
                continue
            rows[name] = lambda baseline=baseline: baseline.fit(data, 0)
    fit(replace(data, x=data.x[:64], y=data.y[:64]), DEFAULT, 0)  # the first run loads libraries
    reference = 0.0
    print("| method | s | CPU s | against ours |\n|---|---|---|---|")
    for name, train in rows.items():
        if options.rows and name not in options.rows.split(","):
            continue
        start, busy = time.perf_counter(), time.process_time()
        train()
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        reference = reference or busy  # other work on the machine does not count
        print(f"| {name} | {seconds:.2f} | {busy:.2f} | {busy / reference:.2f} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GB")


if __name__ == "__main__":
    main()

"""Would several prompt embeddings an image (m > 1, the paper's future work) help?

    python benchmarks/study_data.py TEST_DATA FOLDER
    python benchmarks/several_embeddings.py FOLDER [--data birds,pets] [--seeds 0,1,2,3,4]

The prompts of all classes, less their class mean, fall into m groups by k-means: m aspects that the
classes have in common. The mean prompt of a class within a group is one target, so a query is
distilled per aspect (``aape.adapter.method.query``), and the m cosines are averaged or the largest
counts.
Judged as the recipe judges its query: base classes are halved at random, and what is fitted on one
half classifies the images of the other. No image of a new class and no test image is read.

    m aspects, c classes, k prompts, d embedding width, n images
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from distillation_study import SHOTS
from torch import Tensor

from aape.adapter.classification.feature_file import FileSource
from aape.adapter.classification.protocols import load_protocol
from aape.adapter.method.hold_out import restrict
from aape.adapter.method.problem import FewShot
from aape.adapter.method.query import fit_query
from aape.adapter.method.recipe import STAGED

COUNTS = (1, 2, 4, 8)
_HALVINGS, _ROUNDS = 3, 20


def aspects(prompts: Tensor, mask: Tensor, m: int, seed: int) -> Tensor:
    """Return (m, c, d): the mean prompt of each class in each group, all of them where none is."""
    mean = F.normalize((prompts * mask[..., None]).sum(1), dim=-1)
    residual = F.normalize(prompts - mean[:, None], dim=-1)
    points = residual[mask]
    generator = torch.Generator().manual_seed(seed)
    centres = points[torch.randperm(len(points), generator=generator)[:m]]
    for _ in range(_ROUNDS):
        nearest = (points @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = F.normalize(sums + 1e-6 * centres, dim=-1)
    group = (residual @ centres.T).argmax(-1)  # (c, k)
    out = []
    for number in range(m):
        mine = mask & (group == number)
        total = (prompts * mine[..., None]).sum(1)
        out.append(torch.where(mine.any(1)[:, None], F.normalize(total, dim=-1), mean))
    return torch.stack(out)


def held_out(data: FewShot, m: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return accuracy and cross-entropy on held-out classes, for either way to join m queries.

    Penalty and weight of the query are the best of the recipe's lists, for each way and m alike.
    """
    generator = torch.Generator().manual_seed(seed)
    settings = [(p, w) for p in STAGED.query.penalties for w in STAGED.query.weights if w]
    totals = {way: np.zeros((len(settings), 2)) for way in ("mean", "largest")}
    images = 0
    for _ in range(_HALVINGS):
        order = torch.randperm(len(data.w), generator=generator)
        halves = [part.sort().values for part in order.chunk(2)]
        for known, unknown in (halves, halves[::-1]):
            problem, held = restrict(data, known), restrict(data, unknown)
            targets = aspects(problem.prompts, problem.mask, m, seed)
            plain = held.x @ held.w.T
            for row, (penalty, weight) in enumerate(settings):
                each = torch.stack(
                    [
                        fit_query(problem.x, target[problem.y], problem.w, penalty)(held.x, held.w)
                        for target in targets
                    ]
                )
                for way, joined in (("mean", each.mean(0)), ("largest", each.amax(0))):
                    logits = data.scale * torch.lerp(plain, joined, weight)
                    totals[way][row] += (
                        float((logits.argmax(1) == held.y).sum()),
                        float(F.cross_entropy(logits, held.y, reduction="sum")),
                    )
            images += len(held.y)
    best = {way: total[total[:, 1].argmin()] / images for way, total in totals.items()}
    return {way: (100 * float(row[0]), float(row[1])) for way, row in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="birds,pets")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    options = parser.parse_args()
    protocol = load_protocol("base2new")
    for name in options.data.split(","):
        source = FileSource(options.folder / f"{name}.safetensors")
        print(f"\n## {name}: held-out base classes\n\n| m | joined by | accuracy | cross-entropy |")
        print("|---|---|---|---|")
        draws = []
        for seed in map(int, options.seeds.split(",")):
            data = source.draw(SHOTS.get(name, 16), seed)
            draws.append((seed, data.few_shot(protocol.trained_ids(data))))
        for m in COUNTS:
            rows = [held_out(data, m, seed) for seed, data in draws]
            for way in ("mean", "largest") if m > 1 else ("mean",):
                values = np.array([row[way] for row in rows])
                mean, spread = values.mean(0), values.std(0, ddof=1)
                print(
                    f"| {m} | {way} | {mean[0]:.2f} ± {spread[0]:.2f} |"
                    f" {mean[1]:.3f} ± {spread[1]:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

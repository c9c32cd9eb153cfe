"""Distillation as a prior ‖B − λB₀‖² of the map for new classes, on held-out base classes.

    python benchmarks/study_data.py TEST_DATA FOLDER
    python benchmarks/trained_prior.py FOLDER TEST_DATA [--cells birds:7,pets:16,flowers:16,lvis:4]

The cuts of base classes are those of ``new_class_rules.py``: training and validation photos, no
test photo and no new class. B₀ is the ridge from the training photos to what their classes are
told to be: the mean of the descriptions, of those of another class, or the template. With the
prior's mean as an offset the same convex problem gives the trained map about it, so λ 0 is the
recipe. The map's variance, how far it is used and the λ of the rows ``λ chosen`` come from four
folds of the classes that are trained on. ``doubt``: standard errors that are taken off its gain
before the map is used; the recipe has two. Differences are paired over cuts, ± two standard
errors.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from description_options import distilled
from new_class_rules import Cut, cuts, path_of
from torch import Tensor

from aape.adapter.method.class_text import choose_class_text
from aape.adapter.method.convex_folds import trusted
from aape.adapter.method.convex_problem import ConvexProblem, Setting
from aape.adapter.method.hold_out import restrict
from aape.adapter.method.problem import FewShot, other_classes
from aape.adapter.method.recipe import DEFAULT
from aape.adapter.method.temperature import best_temperature, losses

DOUBTS = (0.0, 2.0)
LAMBDAS = (0.05, 0.1, 0.25, 0.5, 1.0)
TARGETS = ("descriptions", "shuffled", "template")
Parts = list[tuple[Tensor, Tensor]]


class Trial:
    """One cut, its folds of the trained classes, and what is fixed before any map is trained."""

    def __init__(self, cut: Cut, seed: int) -> None:
        self.cut, known = cut, cut.known
        self.choice, _ = choose_class_text(known, DEFAULT.class_text)
        plain = known.scale * known.x @ known.classes.text(self.choice).T
        self.factor = known.scale * best_temperature([(plain, known.y)])
        generator = torch.Generator().manual_seed(seed)
        self.folds = []
        for part in torch.randperm(len(known.w), generator=generator).chunk(4):
            kept = torch.ones(len(known.w), dtype=torch.bool)
            kept[part] = False
            inner = restrict(known, kept.nonzero()[:, 0]), restrict(known, part.sort().values)
            self.folds.append(Cut(*inner))

    def logits(self, cut: Cut, target: str, weight: float) -> tuple[Tensor, list[Tensor]]:
        """Return zero-shot logits of the classes held out, and those with the map, by variance."""
        known, new = cut.known, cut.new
        t, new_t = known.classes.text(self.choice), new.classes.text(self.choice)
        offset, plain, told = self.factor * known.x @ t.T, self.factor * new.x @ new_t.T, None
        if weight:
            move = distilled(known.x, known.y, target_of(known, target))
            size = weight * self.factor / move(known.x).norm(dim=-1).mean()
            offset = offset + size * move(known.x) @ (t - t.mean(0)).T
            told = size * move(new.x) @ (new_t - t.mean(0)).T
        problem, found = ConvexProblem(known.x, known.y, t, offset), []
        for variance in DEFAULT.convex.new_shared:
            solved = problem.solve(Setting(False, DEFAULT.convex.new_own, variance))
            added = solved.new(new.x, new_t)
            found.append(plain + added if told is None else plain + told + added)
        return plain, found

    def judge(self, target: str, weight: float) -> tuple[float, list[float]]:
        """Return what the folds say, and accuracies and losses on the classes that play new ones.

        Losses are at the best temperature; both come with the map trusted at no and two errors.
        """
        plain: Parts = []
        moved: list[Parts] = [[] for _ in DEFAULT.convex.new_shared]
        owners, first = [], 0
        for fold in self.folds:
            before, after = self.logits(fold, target, weight)
            plain.append((before, fold.new.y))
            for parts, changed in zip(moved, after):
                parts.append((changed, fold.new.y))
            owners.append(fold.new.y + first)
            first += len(fold.new.w)
        costs = [float(losses(parts).mean()) for parts in moved]
        best = int(np.argmin(costs))
        before, after = self.logits(self.cut, target, weight)
        found = []
        for doubt in DOUBTS:
            share, _ = trusted(plain, moved[best], torch.cat(owners), first, doubt)
            mixed = torch.lerp(before, after[best], share)
            found.append(self.cut.accuracy(mixed))
            found.append(float(losses([(mixed, self.cut.new.y)]).mean()))
        return costs[best], found


def target_of(data: FewShot, name: str) -> Tensor:
    """Return what the photos of each class are told to be (c, d)."""
    if name == "template":
        return data.classes.template
    described = data.classes.described
    return described if name == "descriptions" else described[other_classes(len(described), 0)]


def table_of(found: list[Cut]) -> dict[str, np.ndarray]:
    """Return accuracies and losses (cuts, 4) of every row."""
    rows: dict[str, list[list[float]]] = {}
    for seed, cut in enumerate(found):
        trial = Trial(cut, seed)
        plain = trial.judge("", 0.0)
        rows.setdefault("λ 0, the recipe", []).append(plain[1])
        for target in TARGETS:
            tried = {weight: trial.judge(target, weight) for weight in LAMBDAS}
            for weight, (_, values) in tried.items():
                rows.setdefault(f"{target}, λ {weight:g}", []).append(values)
            chosen = min([plain, *tried.values()], key=lambda pair: pair[0])
            rows.setdefault(f"{target}, λ chosen", []).append(chosen[1])
    return {name: np.array(values) for name, values in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("test_data", type=Path)
    parser.add_argument("--cells", default="birds:7,pets:16,flowers:16,lvis:4,imagenet:4")
    parser.add_argument("--cuts", type=int, default=4, help="random ones, besides two in order")
    options = parser.parse_args()
    names = [f"{what}, doubt {doubt:g}" for doubt in DOUBTS for what in ("accuracy", "CE")]
    print(f"| data | row | {' | '.join(names)} |\n|{'---|' * (len(names) + 2)}")
    for cell in options.cells.split(","):
        name, shots = cell.split(":")
        path = path_of(options.folder, options.test_data, name)
        table = table_of(cuts(path, name, int(shots), options.cuts))
        reference = next(iter(table.values()))
        for row, values in table.items():
            apart = values - reference
            error = 2 * apart.std(0, ddof=1) / len(apart) ** 0.5
            cells = []
            for i, (mean, width) in enumerate(zip(apart.mean(0), error)):
                digits = 3 if i % 2 else 2
                level = f"{values[:, i].mean():.{digits}f}"
                difference = f" ({mean:+.{digits}f} ± {width:.{digits}f})"
                cells.append(level + (difference if apart.any() else ""))
            print(f"| {name}:{shots} | {row} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

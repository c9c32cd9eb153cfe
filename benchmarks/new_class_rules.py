"""How sure must a gain be before it is used for new classes? Judged on held-out base classes.

    python benchmarks/study_data.py TEST_DATA FOLDER
    python benchmarks/new_class_rules.py FOLDER TEST_DATA [--cells birds:7,pets:16,lvis:4]
    python benchmarks/new_class_rules.py FOLDER TEST_DATA --of temperatures

Only base classes are read, and of them training and validation photos: no test photo and no new
class. Base classes are cut in two, some times at random and in their order; the rule is applied on
one part and the other plays new classes. For each number of standard errors (``doubt``) the table
has the accuracy there: of class texts alone, and of the map on top of texts chosen by one error.
``--of temperatures``: cross-entropy and calibration error of zero-shot CLIP there, with texts
chosen by one error, at the temperature 1, at that of the part that was trained on (T), at the root
of it, and at T where its gain is more than one or two errors.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aape.adapter.classification.feature_file import FileSource
from aape.adapter.method.class_text import choose_class_text
from aape.adapter.method.convex import fit_convex
from aape.adapter.method.convex_folds import rank_in_class, sure_gain
from aape.adapter.method.hold_out import restrict
from aape.adapter.method.problem import ClassSet, FewShot
from aape.adapter.method.recipe import DEFAULT
from aape.adapter.method.temperature import best_temperature, cross_entropies
from aape.adapter.metrics.calibration import expected_calibration_error

POOLS = {"imagenet": ["all"], "lvis": ["train_4shot"]}
BASE = {"imagenet": 160, "lvis": 127}  # of 1,000 and 253; others: the first half
DOUBTS = (0.0, 1.0, 2.0, 3.0)
TEMPERATURES = ("1", "T", "√T", "T if sure by 1", "by 2")


@dataclass(frozen=True)
class Cut:
    """Some base classes to train on, and others that play new ones; photos of both."""

    known: FewShot
    new: FewShot

    def texts(self, doubt: float) -> tuple[Tensor, Tensor]:
        """Return texts of both, as the known classes choose."""
        recipe = DEFAULT.class_text.model_copy(update={"doubt": doubt})
        choice, _ = choose_class_text(self.known, recipe)
        return self.known.classes.text(choice), self.new.classes.text(choice)

    def accuracy(self, logits: Tensor) -> float:
        """Return it in percent, on photos of the classes that play new ones."""
        return float((logits.argmax(1) == self.new.y).float().mean() * 100)

    def text_accuracy(self, doubt: float) -> float:
        """Return that of class texts alone."""
        return self.accuracy(self.new.x @ self.texts(doubt)[1].T)

    def map_accuracies(self, seed: int) -> list[float]:
        """Return that of the map on top, a doubt each."""
        t, new_t = self.texts(1.0)
        found = []
        for doubt in DOUBTS:
            choices = DEFAULT.convex.model_copy(
                update={"new_doubt": doubt, "own": [0.0], "shared": [0.0], "whiten": [False]}
            )
            fitted = fit_convex(self.known.x, self.known.y, t, self.known.scale, choices, seed=seed)
            logits = fitted.sharpness * self.known.scale * self.new.x @ new_t.T
            if fitted.new is not None:
                logits = logits + fitted.new_weight * fitted.new.new(self.new.x, new_t)
            found.append(self.accuracy(logits))
        return found

    def temperatures(self) -> list[float]:
        """Return cross-entropy and ECE of zero-shot CLIP on the new classes, a rule each."""
        t, new_t = self.texts(1.0)
        known, y = self.known.scale * self.known.x @ t.T, self.known.y
        new = self.new.scale * self.new.x @ new_t.T
        best = best_temperature([(known, y)])
        gain = cross_entropies(known, y) - cross_entropies(known * best, y)
        sure = [sure_gain(gain, y, len(t), doubt) > 0 for doubt in (1.0, 2.0)]
        factors = [1.0, best, best**0.5, *(best if is_sure else 1.0 for is_sure in sure)]
        found = []
        for factor in factors:
            top = (new * factor).softmax(1).max(1)
            right = (top.indices == self.new.y).numpy()
            found.append(float(cross_entropies(new * factor, self.new.y).mean()))
            found.append(expected_calibration_error(top.values.numpy(), right))
        return found


def cuts(path: Path, name: str, shots: int, count: int) -> list[Cut]:
    """Return the base classes cut in two: at random, and in their order both ways."""
    file = FileSource(path)
    splits = [file.split(split) for split in POOLS.get(name, ["train", "val"])]
    x = torch.from_numpy(np.concatenate([split.x for split in splits]))
    y = torch.from_numpy(np.concatenate([split.y for split in splits]))
    c = len(file.texts.names)
    base = torch.arange(BASE.get(name, (c + 1) // 2))
    if name == "imagenet":
        generator = torch.Generator().manual_seed(0)
        base = torch.randperm(c // 2, generator=generator)[: len(base)].sort().values
    scale = float(file.metadata.get("logit_scale", 100.0))
    texts = file.texts
    vectors = [torch.from_numpy(v) for v in (texts.template, texts.ensemble, texts.described)]
    classes = ClassSet(*vectors, None, torch.arange(c))
    none = x[:0], y[:0]
    prompts = torch.from_numpy(file.texts.prompts), torch.from_numpy(file.texts.mask)
    orders = [base, base.flip(0)]
    for seed in range(count):
        generator = torch.Generator().manual_seed(50 + seed)
        orders.append(base[torch.randperm(len(base), generator=generator)])
    found = []
    for seed, order in enumerate(orders):
        half = len(order) // 2
        few = rank_in_class(y, seed) < shots
        trained = FewShot(x[few], y[few], None, classes, *prompts, *none, scale, shots)
        pool = FewShot(x, y, None, classes, *prompts, *none, scale, shots)
        known, unknown = order[:half].sort().values, order[half:].sort().values
        found.append(Cut(restrict(trained, known), restrict(pool, unknown)))
    return found


def path_of(folder: Path, test_data: Path, name: str) -> Path:
    """Return the file of features of a data set."""
    if name == "lvis":
        return test_data / "clip_vitb32" / "lvis_imagenet.safetensors"
    return folder / f"{name}.safetensors"


def doubts_row(cuts: list[Cut]) -> list[str]:
    """Return accuracies, a doubt each, and the worst cut of the map at one and two."""
    rows = []
    for seed, cut in enumerate(cuts):
        texts = [cut.text_accuracy(doubt) for doubt in DOUBTS]
        plain = cut.accuracy(cut.new.x @ cut.new.w.T)
        rows.append([plain, *texts, *cut.map_accuracies(seed)])
    table = np.array(rows)
    worst = (table[:, 6:8] - table[:, :1]).min(0)  # of maps at 1 and 2, against zero-shot
    return [f"{v:.1f}" for v in table.mean(0)] + [f"{v:+.1f}" for v in worst]


def temperatures_row(cuts: list[Cut]) -> list[str]:
    """Return cross-entropy and ECE, a rule each."""
    mean = np.array([cut.temperatures() for cut in cuts]).mean(0)
    return [f"{loss:.3f}, {error:.1f}" for loss, error in mean.reshape(-1, 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("test_data", type=Path)
    parser.add_argument("--of", choices=("doubts", "temperatures"), default="doubts")
    parser.add_argument("--cells", default="birds:7,pets:16,flowers:16,lvis:4,imagenet:4")
    parser.add_argument("--cuts", type=int, default=4, help="random ones, besides two in order")
    options = parser.parse_args()
    names = ["zero-shot", *(f"{what} {doubt:g}" for what in ("texts", "map") for doubt in DOUBTS)]
    names, made = [*names, "worst map 1", "worst map 2"], doubts_row
    if options.of == "temperatures":
        names, made = list(TEMPERATURES), temperatures_row
    print(f"| data | shots | {' | '.join(names)} |\n|{'---|' * (len(names) + 2)}")
    for cell in options.cells.split(","):
        name, shots = cell.split(":")
        path = path_of(options.folder, options.test_data, name)
        cells = made(cuts(path, name, int(shots), options.cuts))
        print(f"| {name} | {shots} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

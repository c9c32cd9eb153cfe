"""How many photos a class must a pool without labels have? Gain by their number, without the limit.

    python benchmarks/label_free_photos.py TEST_DATA FOLDER

Training photos alone, so that the limit can be fixed by it: of the 23 Pets breeds with real texts,
and of twice 200 ImageNet classes that are in neither LVIS nor Pets. Some photos of a class are the
pool, up to 20 others are tested on; five and three draws. See docs/labelfree.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from label_free import pets, plain, unit

from aape.adapter.classification.feature_file import FileSource, read_features
from aape.adapter.method.unlabelled import PseudoLabelChoices, fit_unlabelled

SCALE = 100.0


def accuracy(logits: torch.Tensor, y: torch.Tensor) -> float:
    return float((logits.argmax(1) == y).float().mean() * 100)


def gains(
    x: np.ndarray, y: np.ndarray, text: np.ndarray, numbers: Sequence[int], draws: int, name: str
) -> None:
    """Print the gain over zero-shot CLIP for pools of so many photos a class."""
    photos, t = torch.from_numpy(x), torch.from_numpy(text)
    for number in numbers:
        found = []
        for seed in range(draws):
            generator = np.random.default_rng(seed)
            pool, test = [], []
            for label in range(len(t)):
                rows = generator.permutation(np.flatnonzero(y == label)).tolist()
                pool += rows[:number]
                test += rows[number : number + 20]
            fitted = fit_unlabelled(
                photos[pool], lambda v: SCALE * v @ t.T, t, PseudoLabelChoices(least=0), seed=seed
            )
            truth, plain_logits = torch.from_numpy(y[test]), SCALE * photos[test] @ t.T
            more = fitted.weight * fitted.discriminant(photos[test])
            found.append(accuracy(plain_logits + more, truth) - accuracy(plain_logits, truth))
        print(f"{name}, {number} a class: {np.mean(found):+.2f} ± {np.std(found, ddof=1):.2f}"
              f" ({min(found):+.1f} to {max(found):+.1f})", flush=True)  # fmt: skip


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    source = FileSource(pets(data, out))
    train = source.split("train")
    gains(train.x, train.y, source.texts.ensemble, (1, 2, 3, 4, 6, 8, 16), 5, "Pets")
    tensors, about = read_features(data / "clip_vitb32" / "imagenet_4shot.safetensors")
    _, others = read_features(data / "clip_vitb32" / "lvis_imagenet.safetensors")
    skipped = {plain(n) for n in [*json.loads(others["classnames"]), *source.texts.names]}
    names = json.loads(about["classnames"])
    kept = [i for i, name in enumerate(names) if plain(name) not in skipped]
    x, y = unit(tensors["train_4shot.features"]), tensors["train_4shot.labels"].astype(np.int64)
    generator = np.random.default_rng(0)
    for part in (1, 2):
        ids = generator.permutation(kept)[:200].tolist()
        rows = np.flatnonzero(np.isin(y, ids))
        labels = np.array([ids.index(int(label)) for label in y[rows]])
        text = unit(tensors["class_text.features"])[ids]
        gains(x[rows], labels, text, (1, 2, 3), 3, f"ImageNet, part {part}")


if __name__ == "__main__":
    main()

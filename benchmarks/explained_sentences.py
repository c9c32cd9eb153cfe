"""Are the sentences that ``aape explain`` names the right ones? Measured on test photos of a run.

    python benchmarks/explained_sentences.py RUN [--root PHOTOS]

Three questions, each with its rival:

1. Is the sentence nearest to a photo about its class? Rivals: the nearest sentence to h(x), and
   drawing a sentence at random.
2. Does a sentence that carries its class on training photos carry it on test photos? Spearman's
   correlation over the sentences of a class, averaged over classes; 0 is chance.
3. Is the class text better without the sentences that carry least? Zero-shot accuracy on test
   photos with all sentences, with the better half by training photos, and with a random half.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from aape.adapter.explain import training_photos
from aape.adapter.explain.classes import sentence_effects
from aape.adapter.explain.opened import OpenedRun, open_run
from aape.adapter.explain.photo import aape_of


def main() -> None:
    """Print the figures of one run as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path)
    asked = parser.parse_args()
    run = open_run(asked.run)
    train, why = training_photos(run, asked.root)
    if train is None:
        raise SystemExit(why)
    x, y = test_photos(run, asked.root)
    print(json.dumps(measure(run, train, x, y), indent=2))


def test_photos(run: OpenedRun, root: Path | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features and labels of the test photos."""
    if run.source is not None:
        test = run.source.split("test")
        return torch.from_numpy(test.x).float(), torch.from_numpy(test.y)
    from aape.adapter.classification.bank_source import BankSource
    from aape.pipeline.datasets import open_dataset

    assert run.bank is not None
    assert run.encoder is not None
    dataset = open_dataset(str(run.about["dataset"]), root)
    test = BankSource(run.bank, dataset, run.encoder).test
    return torch.from_numpy(test.x).float(), torch.from_numpy(test.y)


@torch.no_grad()
def measure(
    run: OpenedRun, train: tuple[torch.Tensor, torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> dict[str, object]:
    """Return the answers to the three questions."""
    sentences = run.sentences
    assert sentences is not None
    owners = torch.tensor(sentences.class_ids)
    found: dict[str, object] = {"test photos": len(y), "sentences": len(owners)}
    keys = sentences.vectors
    found["nearest sentence to x is of the true class, %"] = right(x, keys, owners, y)
    h = aape_of(run.adapter, x)
    if h is not None:
        vector, origin, _ = h
        moved = keys if origin is None else keys - origin
        found["nearest sentence to h(x) is of the true class, %"] = right(vector, moved, owners, y)
    chance = torch.bincount(owners, minlength=len(run.names)).float() / len(owners)
    found["a random sentence is, %"] = round(100 * float(chance[y].mean()), 1)
    if not sentences.whole:
        found |= of_carrying(run, train, x, y)
    return found


def right(x: torch.Tensor, keys: torch.Tensor, owners: torch.Tensor, y: torch.Tensor) -> float:
    """Return how often the nearest sentence belongs to the photo's class, in percent."""
    near = (F.normalize(x, dim=-1) @ F.normalize(keys, dim=-1).T).argmax(1)
    return round(100 * float((owners[near] == y).float().mean()), 1)


def of_carrying(
    run: OpenedRun, train: tuple[torch.Tensor, torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> dict[str, object]:
    """Return whether what carries a class on training photos does so on test photos."""
    sentences = run.sentences
    assert sentences is not None
    correlations, texts = [], {"all": [], "better half": [], "random half": [], "worse half": []}
    generator = torch.Generator().manual_seed(0)
    for class_id in range(len(run.names)):
        own = sentences.of(class_id)
        place = {sentences.texts[i]: i for i in own}
        effects = sentence_effects(run, class_id, own, train, 1.0)
        order = [place[e.text] for e in effects]  # the most carrying first
        on_test = {e.text: e.carries for e in sentence_effects(run, class_id, own, (x, y), 1.0)}
        if len(effects) > 3 and effects[0].carries is not None:
            a = np.array([e.carries for e in effects], dtype=float)
            b = np.array([on_test[e.text] for e in effects], dtype=float)
            correlations.append(spearman(a, b))
        half = max(1, len(order) // 2)
        shuffled = [order[i] for i in torch.randperm(len(order), generator=generator).tolist()]
        for name, kept in (
            ("all", order), ("better half", order[:half]), ("worse half", order[-half:]),
            ("random half", shuffled[:half]),
        ):  # fmt: skip
            texts[name].append(F.normalize(sentences.vectors[kept].sum(0), dim=-1))
    accuracy = {
        f"zero-shot with {name} of the sentences, %": round(
            100 * float(((x @ torch.stack(rows).T).argmax(1) == y).float().mean()), 1
        )
        for name, rows in texts.items()
    }
    return {"Spearman of carrying, training to test": round(float(np.mean(correlations)), 2)} | (
        accuracy
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation of two rows without ties."""
    ranks = [np.argsort(np.argsort(row)) for row in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()

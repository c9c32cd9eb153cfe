"""How well ``lite`` reads class names: zero-shot and 16-shot accuracy on folders of photos.

    python benchmarks/lite_alignment.py FOLDER [FOLDER …] [--json]

FOLDER holds ``train/`` and ``test/`` (and perhaps ``validation/``) with one folder a class. Choices
are made on train and validation; the test column is only reported.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from open_clip import IMAGENET_CLASSNAMES
from sklearn.linear_model import LogisticRegression

from aape.pipeline.encoders.base import batches, unit
from aape.pipeline.encoders.lite import LiteEncoder
from aape.pipeline.progress import track
from aape.pipeline.raster import open_raster

TEMPLATE = "a photo of a {}."


def pooled_features(encoder: LiteEncoder, paths: list[Path]) -> torch.Tensor:
    """Return the tower's pooled features before the alignment, (n, 1280)."""
    rows = []
    for part in track(list(batches(len(paths), 16)), paths[0].parts[-3]):
        pixels = torch.stack([encoder.transform(open_raster(path)) for path in paths[part]])
        rows.append(encoder.image_tokens(pixels).mean(1))
    return torch.cat(rows)


def ridge_vectors(encoder: LiteEncoder, texts: list[str]) -> torch.Tensor:
    """The simplest alignment, for comparison: ridge (λ = 1) from names to centred rows."""
    names = torch.cat([encoder._texts(IMAGENET_CLASSNAMES[s]) for s in batches(1000, 100)])
    rows = unit(encoder._images.classifier - encoder._images.classifier.mean(0))
    mean = names.mean(0)
    centred = names - mean
    gram = centred.T @ centred + torch.eye(centred.shape[1])
    return unit((encoder._texts(texts) - mean) @ torch.linalg.solve(gram, centred.T @ rows))


def probe(train: torch.Tensor, labels: np.ndarray, test: torch.Tensor, truth: np.ndarray) -> float:
    """Mean accuracy of logistic regression on 16 images a class, seeds 1 to 3."""
    scores = []
    for seed in (1, 2, 3):
        rng = np.random.default_rng(seed)
        shots = [rng.permutation(np.flatnonzero(labels == c))[:16] for c in np.unique(labels)]
        chosen = np.concatenate(shots)
        model = LogisticRegression(C=10, max_iter=100).fit(4 * unit(train[chosen]), labels[chosen])
        scores.append(model.score(4 * unit(test), truth))
    return 100 * float(np.mean(scores))


def measure(encoder: LiteEncoder, folder: Path) -> list[dict[str, object]]:
    """Measure every split of one folder."""
    classes = sorted(path.name for path in (folder / "train").iterdir())
    names = [TEMPLATE.format(name.replace("_", " ")) for name in classes]
    ours = torch.from_numpy(encoder.encode_text(names))
    ridge = ridge_vectors(encoder, names)
    rows: list[dict[str, object]] = []
    train: tuple[torch.Tensor, np.ndarray] | None = None
    for split in ("train", "validation", "test"):
        paths = sorted((folder / split).glob("*/*.*"))
        if not paths:
            continue
        labels = np.array([classes.index(path.parent.name) for path in paths])
        raw = pooled_features(encoder, paths)
        x = encoder._alignment.image(raw)
        row: dict[str, object] = {"data": f"{folder.name} {split}", "photos": len(paths)}
        row["zero-shot ridge"] = 100 * float(
            ((unit(raw) @ ridge.T).argmax(1).numpy() == labels).mean()
        )
        row["zero-shot lite"] = 100 * float(((x @ ours.T).argmax(1).numpy() == labels).mean())
        if train is None:
            train = raw, labels
        else:
            project = encoder._alignment.image_map
            row["16-shot probe, 1280-d"] = probe(*train, raw, labels)
            row["16-shot probe, 512-d"] = probe(train[0] @ project, train[1], raw @ project, labels)
        rows.append(row)
    return rows


def main() -> None:
    """Print the table as Markdown or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    encoder = LiteEncoder("cpu")
    rows = [row for folder in options.folders for row in measure(encoder, folder)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    columns = list(rows[-1])
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        cells = [row.get(column, "") for column in columns]
        print(
            "| " + " | ".join(f"{c:.1f}" if isinstance(c, float) else str(c) for c in cells) + " |"
        )


if __name__ == "__main__":
    main()

"""LVIS photos in turn: each of a class's four is the test photo once, the others are the pool.

python benchmarks/label_free_folds.py TEST_DATA FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from label_free import lvis, pool_of

from aape.adapter.classification.feature_file import FileSource
from aape.adapter.classification.unlabelled import evaluate_unlabelled
from aape.adapter.config import EvaluationConfig
from aape.adapter.method.recipe import DEFAULT


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for texts in ("ensemble", "both"):
        for kind in ("balanced", "half the classes"):
            gains, plain = [], []
            for fold in range(4):
                source = FileSource(lvis(data, out, texts, fold))
                rows = pool_of(kind, source.tensors["train.labels"], fold)
                pool = torch.from_numpy(source.split("train").x[rows])
                settings = EvaluationConfig(seeds=[fold], baselines=["none"], resamples=0)
                results, _, _ = evaluate_unlabelled(source, pool, DEFAULT, settings)
                plain.append(results.method("zero-shot").mean("accuracy"))
                gains.append(results.method("ours").mean("accuracy") - plain[-1])
            spread = np.std(gains, ddof=1)
            print(f"{texts}, {kind}: zero-shot {np.mean(plain):.2f}, folds {np.round(gains, 2)}")
            print(f"  ours minus zero-shot {np.mean(gains):+.2f} ± {spread:.2f}", flush=True)


if __name__ == "__main__":
    main()

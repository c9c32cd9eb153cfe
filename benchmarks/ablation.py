"""The paper's ablation on the study's features: which aggregator, how many prompts, which writer.

    python benchmarks/study_data.py TEST_DATA FOLDER
    python benchmarks/ablation.py FOLDER [--data birds,pets] [--bank OTHER_BANK]

Every row is the default recipe with the query held to the prompts (``query.blends: [1]``), so that
held-out classes cannot fall back on the class text; the same images, shots and seeds. ``--bank``
adds rows with the prompts of other banks for the same classes and encoder. Base-to-new.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distillation_study import SHOTS

from aape.adapter.classification.evaluate import evaluate_classification
from aape.adapter.classification.feature_file import FileSource
from aape.adapter.config import EvaluationConfig
from aape.adapter.method.recipe import STAGED, Recipe
from aape.adapter.results import MethodResult
from aape.adapter.run import RunFolder
from aape.pipeline.bank import PromptBank

AGGREGATORS = ("random", "mean", "mlp", "attention")
PROMPTS = (1, 2, 4, 8, 16, 32)


def recipe(kind: str = "attention", prompts: int = 0) -> Recipe:
    """Return the default with one aggregator and so many prompts of a class (0 is all)."""
    aggregator = STAGED.aggregator.model_copy(update={"kind": kind, "prompts": prompts})
    query = STAGED.query.model_copy(update={"blends": [1.0]})
    name = f"{kind}-{prompts or 'all'}"
    return STAGED.model_copy(update={"name": name, "aggregator": aggregator, "query": query})


def measure(
    source: FileSource, changed: Recipe, seeds: list[int], shots: int, folder: Path
) -> MethodResult:
    """Return the row of one recipe; finished trainings below ``folder`` are reused."""
    settings = EvaluationConfig(shots=shots, seeds=seeds, baselines=["none"], resamples=0)
    run = RunFolder(folder / changed.name)
    return evaluate_classification(source, changed, settings, run=run).methods[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="birds")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--bank", type=Path, action="append", default=[])
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    for name in options.data.split(","):
        path = options.folder / f"{name}.safetensors"
        source, runs = FileSource(path), options.folder / "runs" / f"{name}-ablation"
        most = int(source.texts.mask.sum(1).max())
        rows = {
            f"{kind} of all prompts": (source, recipe(kind), runs / "file") for kind in AGGREGATORS
        }
        for count in (n for n in PROMPTS if n < most):
            rows[f"attention over {count} prompts a class"] = (
                source, recipe(prompts=count), runs / "file",
            )  # fmt: skip
        for bank in options.bank:
            other = FileSource(path, PromptBank.open(bank))
            rows[f"attention, prompts of {bank.name}"] = (other, recipe(), runs / bank.name)
        print(f"\n## {name}, up to {most} prompts a class\n\n| target | base | new | H |")
        print("|---|---|---|---|")
        for label, (origin, changed, folder) in rows.items():
            row = measure(origin, changed, seeds, SHOTS.get(name, 16), folder)
            cells = [f"{row.mean(m):.2f} ± {row.std(m):.2f}" for m in ("base", "new", "H")]
            print(f"| {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

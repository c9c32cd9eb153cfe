"""Parts of a recipe switched off one by one, on the study's features. Base-to-new.

    python benchmarks/study_data.py TEST_DATA FOLDER
    python benchmarks/ablation.py FOLDER [--data birds,pets] [--shots 4,16] [--bank OTHER_BANK]
    python benchmarks/ablation.py FOLDER --of aggregators

``parts``, of the default recipe: each part off, then other words for the descriptions; the interval
is that of ours minus the row, 95 %, paired over photos and seeds.

``aggregators``, the paper's ablation: which aggregator, how many prompts, which writer. Every row
is the recipe ``staged`` with the query held to the prompts (``query.blends: [1]``), so that
held-out classes cannot fall back on the class text; the same images, shots and seeds. ``--bank``
adds rows with the prompts of other banks for the same classes and encoder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distillation_study import SHOTS
from grid import between

from aape.adapter.classification.evaluate import evaluate_classification
from aape.adapter.classification.feature_file import FileSource
from aape.adapter.config import EvaluationConfig
from aape.adapter.method.recipe import DEFAULT, STAGED, Control, Recipe
from aape.adapter.results import MethodResult, Results
from aape.adapter.run import RunFolder
from aape.pipeline.bank import PromptBank

AGGREGATORS = ("random", "mean", "mlp", "attention")
PROMPTS = (1, 2, 4, 8, 16, 32)
PARTS: list[Control] = [
    "untrained", "no-class-text", "no-shared-map", "no-own-weights", "no-whitening", "shuffled",
    "template", "waffle",
]  # fmt: skip


def recipe(kind: str = "attention", prompts: int = 0) -> Recipe:
    """Return ``staged`` with one aggregator and so many prompts of a class (0 is all)."""
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


def aggregators(folder: Path, name: str, seeds: list[int], banks: list[Path]) -> None:
    """Print the paper's ablation on one data set."""
    path = folder / f"{name}.safetensors"
    source, runs = FileSource(path), folder / "runs" / f"{name}-ablation"
    most = int(source.texts.mask.sum(1).max())
    rows = {f"{kind} of all prompts": (source, recipe(kind), runs / "file") for kind in AGGREGATORS}
    for count in (n for n in PROMPTS if n < most):
        rows[f"attention over {count} prompts a class"] = (
            source, recipe(prompts=count), runs / "file",
        )  # fmt: skip
    for bank in banks:
        other = FileSource(path, PromptBank.open(bank))
        rows[f"attention, prompts of {bank.name}"] = (other, recipe(), runs / bank.name)
    print(f"\n## {name}, up to {most} prompts a class\n\n| target | base | new | H |")
    print("|---|---|---|---|")
    for label, (origin, changed, kept) in rows.items():
        row = measure(origin, changed, seeds, SHOTS.get(name, 16), kept)
        cells = [f"{row.mean(m):.2f} ± {row.std(m):.2f}" for m in ("base", "new", "H")]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def parts(folder: Path, name: str, seeds: list[int], shots: int) -> None:
    """Print the default recipe on one data set with each part off."""
    source = FileSource(folder / f"{name}.safetensors")
    settings = EvaluationConfig(
        shots=shots, seeds=seeds, controls=PARTS, baselines=["zero-shot", "mean-of-prompts"]
    )
    run = RunFolder(folder / "runs" / f"{name}-parts-{shots}")
    results = evaluate_classification(source, DEFAULT, settings, run=run)
    print(f"\n## {name}, {shots} shots, {len(seeds)} seeds\n")
    print(difference_table(results), flush=True)


def difference_table(results: Results) -> str:
    """Return means, deviations, and the interval of ours minus each row, in H."""
    lines = ["| row | base | new | H | ours − it, H |", "|---|---|---|---|---|"]
    for row in results.methods:
        cells = [f"{row.mean(m):.2f} ± {row.std(m):.2f}" for m in ("base", "new", "H")]
        found = results.intervals.get(f"ours - {row.name}", {}).get("H")
        lines.append(f"| {row.name} | {' | '.join(cells)} | {between(*found) if found else ''} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--of", choices=("parts", "aggregators"), default="parts")
    parser.add_argument("--data", default="birds")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--shots", default="", help="of parts; by default what the data allow")
    parser.add_argument("--bank", type=Path, action="append", default=[])
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    for name in options.data.split(","):
        if options.of == "aggregators":
            aggregators(options.folder, name, seeds, options.bank)
            continue
        for shots in options.shots.split(",") if options.shots else [SHOTS.get(name, 16)]:
            parts(options.folder, name, seeds, int(shots))


if __name__ == "__main__":
    main()

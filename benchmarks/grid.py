"""Data sets × protocols × shots: ours beside the staged recipe and the baselines, with a count.

    python benchmarks/study_data.py TEST_DATA FOLDER
    python benchmarks/grid.py FOLDER TEST_DATA [--data pets,flowers,imagenet] [--shots 1,4,16]

ImageNet has four photos a class: ``shots`` of them to train on, the rest to test on, other ones and
other halves of the classes every seed. Paired bootstrap over photos and seeds, 95 %. A cell is
lost to a method where the whole interval of ours minus it is below zero, won where it is above.
Finished (method, seed) pairs are kept below FOLDER/runs/grid. ``--write PAGE`` puts the table
between the marks ``<!-- grid -->`` and ``<!-- end of grid -->`` of a page.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from pathlib import Path

from class_texts import FourPhotos
from marked_page import write_between

from aape.adapter.classification.draws import Source
from aape.adapter.classification.evaluate import evaluate_classification
from aape.adapter.classification.feature_file import FileSource
from aape.adapter.config import EvaluationConfig
from aape.adapter.method.recipe import load_recipe
from aape.adapter.results import MethodResult, Results
from aape.adapter.run import RunFolder

BASELINES = (
    "zero-shot,mean-of-prompts,staged,clip-adapter,taskres,lp++,proker,timo,clap,gda,tip-adapter-f"
)
REPORTED = ("zero-shot template", "staged recipe")
NAME = re.compile(r"(?P<data>.+)-(?P<protocol>[a-z0-9]+)-(?P<shots>\d+)-(?P<recipe>[^-]+)")


def interval(results: Results, name: str, metric: str = "") -> tuple[float, float]:
    """Return the interval of ours minus a method; the metric is the one that ranks."""
    found = results.intervals.get(f"ours - {name}", {}).get(metric or results.best)
    return (found[0], found[1]) if found else (math.nan, math.nan)


def between(low: float, high: float) -> str:
    """Return an interval as tables print it."""
    return f"{low:+.1f} to {high:+.1f}".replace("-", "−")


def verdict(results: Results, name: str, metric: str = "") -> str:
    """Return whether ours is above, tied with or below a method, by the whole interval."""
    low, high = interval(results, name, metric)
    return "above" if low > 0 else "below" if high < 0 else "tied" if low <= high else "unknown"


def strongest(results: Results, but: tuple[str, ...] = REPORTED) -> MethodResult:
    """Return the other method with the best mean."""
    others = [m for m in results.methods if m.group == "baseline" and m.name not in but]
    return max(others, key=lambda method: method.mean(results.best))


def row(data: str, shots: int, results: Results) -> str:
    """Return one line of the table; the best of the other methods is the one with the best mean."""
    metric = results.best
    by_name = {method.name: method for method in results.methods}
    ours, best = by_name["ours"], strongest(results)
    cells = [data, results.protocol.split("/")[0], str(shots), str(len(ours.seeds))]
    cells.append(f"{ours.mean(metric):.2f} ± {ours.std(metric):.2f}")
    for name in (*REPORTED, best.name):
        method = by_name.get(name)
        if method is None:
            cells.append("–")
            continue
        low, high = interval(results, name)
        label = f"{name} " if name == best.name else ""
        cells.append(f"{label}{method.mean(metric):.2f} ({between(low, high)})")
    low, high = interval(results, "zero-shot template", "new")
    cells.append("" if math.isnan(low) else between(low, high))
    for method in (ours, by_name["zero-shot template"]):
        cells.append(f"{100 - method.mean('100-ECE'):.1f}")
    return f"| {' | '.join(cells)} |"


def tables(folder: Path, recipe: str) -> str:
    """Return the table of all finished cells below a folder, and the counts."""
    rows, counts = [], Counter()
    below, against_best = [], Counter()
    for path in sorted(folder.glob(f"*-{recipe}/results/classification.json")):
        found = NAME.fullmatch(path.parent.parent.name)
        if found is None:
            continue
        results = Results.load(path)
        rows.append((found["data"], found["protocol"], int(found["shots"]), results))
        for method in results.methods:
            if method.group == "baseline":
                counts[method.name, verdict(results, method.name)] += 1
        against_best[verdict(results, strongest(results, ()).name)] += 1
        for metric in ("accuracy", "base", "new"):
            if verdict(results, "zero-shot template", metric) == "below":
                below.append(f"{path.parent.parent.name} ({metric})")
    rows.sort(key=lambda cell: cell[:3])
    lines = [
        "| data | protocol | shots | seeds | ours | zero-shot | staged | best baseline"
        " | new − zero-shot | ECE | zero-shot's |",
        "|" + "---|" * 11,
        *[row(data, shots, results) for data, _, shots, results in rows],
        "",
        "| ours against | above | tied | below |",
        "|---|---|---|---|",
    ]
    for name in dict.fromkeys(name for name, _ in counts):
        three = [str(counts[name, word]) for word in ("above", "tied", "below")]
        lines.append(f"| {name} | {' | '.join(three)} |")
    three = [f"{against_best[word]} {word}" for word in ("above", "tied", "below")]
    lines.append(f"\nAgainst the best other method of each cell: {', '.join(three)}.")
    lines.append(f"\nBelow zero-shot by more than the interval: {', '.join(below) or 'nowhere'}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("test_data", type=Path)
    parser.add_argument("--data", default="pets,flowers,imagenet", help="none: finished ones alone")
    parser.add_argument("--shots", default="1,4,16")
    parser.add_argument("--protocols", default="fewshot,base2new")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--write", type=Path, help="page to put the table into")
    parser.add_argument("--baselines", default=BASELINES)
    options = parser.parse_args()
    runs = options.folder / "runs" / "grid"
    for data in options.data.split(","):
        if data == "none":
            continue
        source: Source
        if data == "imagenet":
            source = FourPhotos(options.test_data / "clip_vitb32" / "imagenet_4shot.safetensors")
        else:
            source = FileSource(options.folder / f"{data}.safetensors")
        for protocol in options.protocols.split(","):
            for shots in map(int, options.shots.split(",")):
                settings = EvaluationConfig(
                    protocol=protocol,
                    shots=shots,
                    seeds=[int(seed) for seed in options.seeds.split(",")],
                    baselines=options.baselines.split(","),
                )
                name = f"{data}-{protocol}-{shots}-{options.recipe}"
                run = RunFolder(runs / name)
                recipe = load_recipe(options.recipe)
                results = evaluate_classification(source, recipe, settings, run=run)
                run.save_results(results)
                print(f"\n### {name}\n\n{results.to_markdown()}", flush=True)
    table = tables(runs, options.recipe)
    print(f"\n{table}")
    if options.write:
        write_between(options.write, "grid", ["", table, ""])


if __name__ == "__main__":
    main()

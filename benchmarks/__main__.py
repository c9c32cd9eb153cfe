"""All benchmarks in one JSON, and two such files beside each other.

    python -m benchmarks run --small --repeat 3 --out before.json
    python -m benchmarks compare before.json after.json

``run`` starts each benchmark in a process of its own, several times, and keeps every figure with
its repetitions. ``compare`` prints the ratio of the medians with the noise of both: the largest
deviation of a repetition from its median. A ratio within the noise says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
# words of each benchmark that needs nothing but the package: at a small size, and as published
SIZES: dict[str, tuple[list[str], list[str]]] = {
    "bank": (["--sizes", "2000"], []),
    "head": (["--classes", "100", "--batch", "32", "--repeats", "1"], []),
    "retrieval": (["--images", "300", "--width", "64"], []),
    "predict": (["--images", "2000", "--classes", "50"], []),
    "scale": (
        ["--rows", "2000", "4000", "--photos", "5000", "9000", "--classes", "60", "120"]
        + ["--many", "100", "200"],
        # what stays quick; the published tables take an hour: docs/benchmarks.md has their command
        ["--rows", "50000", "100000", "--photos", "100000", "200000", "--classes", "500", "1000"]
        + ["--many", "1000", "2000"],
    ),
    "vqa": (["--questions", "2000"], []),
}


def run(small: bool, repeat: int, names: list[str]) -> dict[str, Any]:
    """Run the benchmarks; return every figure as a list of its repetitions."""
    figures: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for name in names or list(SIZES):
        words = SIZES[name][0 if small else 1]
        for _ in range(repeat):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, str(FOLDER / f"{name}.py"), *words],
                    cwd=folder, capture_output=True, text=True, check=False,
                )  # fmt: skip
                seconds = time.perf_counter() - start
            if done.returncode:
                failed[name] = done.stderr.strip().splitlines()[-1] if done.stderr else "no word"
                break
            figures.setdefault(f"{name} / whole, s", []).append(seconds)
            for figure, value in printed_figures(done.stdout):
                figures.setdefault(f"{name} / {figure}", []).append(value)
            print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    about = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
             "python": platform.python_version(), "small": small, "repeat": repeat}  # fmt: skip
    return {"about": about, "figures": figures, "failed": failed}


def printed_figures(text: str) -> Iterator[tuple[str, float]]:
    """Yield the figures of the JSON and Markdown that a benchmark prints, each with its name.

    >>> list(printed_figures("| size | time |\\n|---|---|\\n| 10 | 2.5 ms |"))
    [('10, time (ms)', 2.5)]
    """
    head: list[str] = []
    for line in text.splitlines():
        if line.startswith("{") and line.endswith("}"):
            yield from _flat("", json.loads(line))
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not head:
                head = cells
            elif not set(line) <= set("|-: "):
                for name, cell in zip(head[1:], cells[1:]):
                    if match := re.fullmatch(r"([\d,]+\.?\d*)\s*([^\d\s]\S*)?", cell):
                        unit = f" ({match[2]})" if match[2] else ""
                        yield f"{cells[0]}, {name}{unit}", float(match[1].replace(",", ""))
        else:
            head = []


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return a Markdown table of ratios, after to before, with the noise of both."""
    lines = ["| figure | before | after | ratio | noise |", "|---|---|---|---|---|"]
    for name, old in before["figures"].items():
        new = after["figures"].get(name)
        if not new or not statistics.median(old):
            continue
        one, other = statistics.median(old), statistics.median(new)
        noise = max(_noise(old), _noise(new))
        ratio = other / one
        mark = "" if abs(ratio - 1) <= noise else " *"
        lines.append(f"| {name} | {one:.4g} | {other:.4g} | {ratio:.3f}{mark} | ±{noise:.1%} |")
    return [*lines, "", "\\* outside the noise"]


def _noise(values: list[float]) -> float:
    middle = statistics.median(values)
    return max(abs(value - middle) for value in values) / abs(middle) if middle else 0.0


def main() -> None:
    """Run or compare, as the words say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    verbs = parser.add_subparsers(dest="verb", required=True)
    runner = verbs.add_parser("run", help="run all benchmarks that need no data")
    runner.add_argument("--small", action="store_true", help="sizes of a minute")
    runner.add_argument("--repeat", type=int, default=3)
    runner.add_argument("--only", action="append", default=[], choices=sorted(SIZES))
    runner.add_argument("--out", type=Path, default=Path("bench.json"))
    comparer = verbs.add_parser("compare", help="ratios of two files, with their noise")
    comparer.add_argument("before", type=Path)
    comparer.add_argument("after", type=Path)
    words = parser.parse_args()
    if words.verb == "compare":
        both = [json.loads(path.read_text()) for path in (words.before, words.after)]
        if both[0]["about"] != both[1]["about"]:
            print(f"Not the same machine or sizes: {both[0]['about']}, {both[1]['about']}\n")
        print("\n".join(compare(*both)))
        return
    found = run(words.small, words.repeat, words.only)
    words.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"Wrote {words.out}: {len(found['figures'])} figures.")
    if found["failed"]:
        print(f"Failed: {found['failed']}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""What sizes that real users bring would take: measured as far as the disk goes, modelled beyond.

    python benchmarks/scale.py --scratch /a/disk --page docs/benchmarks.md

Banks of 50 prompts a class are written in parts, opened, checked, indexed, searched and asked in
SQL; the default recipe is trained at one photo a class, and many classes are told apart; photo
features are kept and found again. Each step has a process of its own. What each takes at the
smaller sizes is a line, which the largest size checks (``scale_model.py``); the line through all of
them says what 5 million prompts, 100,000 classes and 10 million photos would take. With ``--page``
the tables go between two marks of that page. A size is deleted before the next one is made.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import scale_banks
import scale_features
import scale_heads
from marked_page import write_between
from scale_memory import Figures, apart
from scale_model import NOT_MODELLED, table

# how seconds and memory grow, by the beginning of a figure's name; all else grows like n
_BANKS = {
    "write, own": NOT_MODELLED,  # one part and the one that is being made
    "all classes, own": NOT_MODELLED,  # more than a gigabyte goes to a file
    "index ivf, s": "n^1.5",
    "index ivfpq, s": "n^1.5",
    "index ivf, lists": "1",
    "index ivf, recall": "1",
    "index ivfpq, lists": "1",
    "index ivfpq, recall": "1",
    "index ivfpq, candidates": "1",
    "20 searches": "√n",
}
# what a training remembers of its steps has a limit, and so have the scores that are held at once
_MANY = {"train, own": NOT_MODELLED, "predict, own": NOT_MODELLED}
_HEADS = {"train, s": "n²", **_MANY}
_FEW_PHOTOS = 600
_LOAD = "machine after "  # the load of five minutes, under this and the size's key


def bank(scratch: Path, rows: int) -> Figures:
    """Measure the life of a bank."""
    folder, classes = scratch / "scale.bank", rows // scale_banks.PROMPTS
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        figures: Figures = apart(scale_banks.write, folder, classes)
        size = sum(file.stat().st_size for file in folder.iterdir())
        figures["bank on disk, GiB"] = size / 2**30
        figures |= apart(scale_banks.read, folder, classes)
        figures |= apart(scale_banks.texts, folder)
        figures |= apart(scale_banks.verify, folder)
        for kind in ("ivf", "ivfpq"):
            figures |= apart(scale_banks.index, folder, kind)
            figures |= apart(scale_banks.search, folder, kind)
        return figures | apart(scale_banks.sql, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def features(scratch: Path, rows: int) -> Figures:
    """Measure the life of a cache of photo features."""
    folder = scratch / "scale-features"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        figures: Figures = apart(scale_features.write, folder, rows)
        return figures | apart(scale_features.read, folder, rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Log:
    """Figures as lines of JSON, so that a size that was measured is not measured again."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.known: dict[str, Figures] = {}
        for line in lines:
            self.known |= json.loads(line)

    def measured(
        self, what: str, sizes: Sequence[int], measure: Callable[[int], Figures]
    ) -> dict[int, Figures]:
        """Return the figures by size."""
        for size in sizes:
            key = f"{what} {size}"
            if key not in self.known:
                new = {key: measure(size), _LOAD + key: {"load": os.getloadavg()[1]}}
                self.known |= new
                line = json.dumps(new)
                print(line, flush=True)
                if self.path:
                    with self.path.open("a") as stream:
                        stream.write(line + "\n")
        return {size: self.known[f"{what} {size}"] for size in sizes}

    def machine(self) -> str:
        """Say how busy the machine was."""
        loads = [figures["load"] for key, figures in self.known.items() if key.startswith(_LOAD)]
        return f"Load of the machine after each size, this work included: {spread(loads)}."


def main() -> None:
    """Measure the sizes asked for; print the tables, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    add = parser.add_argument
    add("--rows", type=int, nargs="*", default=[125_000, 250_000, 500_000, 1_000_000])
    add("--many", type=int, nargs="*", default=[10_000, 30_000, 100_000])
    add("--photos", type=int, nargs="*", default=[300_000, 400_000, 500_000, 1_000_000])
    add("--classes", type=int, nargs="*", default=[2_500, 5_000, 10_000, 20_000])
    add("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    add("--log", type=Path, default=None, help="figures that are there, and those that come")
    add("--page", type=Path, default=None, help="a page with the marks of the tables")
    words = parser.parse_args()
    asked = {name: getattr(words, name) for name in ("rows", "many", "photos", "classes")}
    if short := [name for name, sizes in asked.items() if len(sizes) == 1]:
        parser.error(f"--{short[0]}: none, or two sizes at least: a model is fitted and checked.")
    scratch, log = words.scratch, Log(words.log)
    train, few = scale_heads.train_and_predict, min([_FEW_PHOTOS, *words.many])
    tables = [
        ("a bank", "bank", words.rows, lambda n: bank(scratch, n), _BANKS, 5_000_000, "prompts"),
        (f"{few} photos in all", "many", words.many, lambda n: apart(train, n, few), _MANY,
         100_000,
         "classes"),
        ("photo features", "features", words.photos, lambda n: features(scratch, n), {}, 10_000_000,
         "photos"),
        ("one photo a class", "train", words.classes, lambda n: apart(train, n, n), _HEADS, 100_000,
         "classes"),
    ]  # fmt: skip
    lines: list[str] = []
    for title, what, sizes, measure, growths, target, unit in tables:
        if sizes:
            figures = log.measured(what, sizes, measure)
            lines += ["", *table(title, figures, growths, target, unit)]
    lines.insert(
        0,
        f"`{command(asked)}`, {os.cpu_count()} cores, one thread. Seconds are those of the "
        "processor, in brackets those of the clock. Memory is what a process holds itself, in "
        "brackets with the pages of mapped files, which the system takes back when others need "
        f"them. {log.machine()}",
    )
    print("\n".join(lines))
    if words.page:
        write_between(words.page, "scale", lines)


def spread(values: Sequence[float]) -> str:
    """Return the least and the most of some numbers, as they are read.

    >>> spread([2.04, 1.2, 7.96]), spread([3.0])
    ('1.2 to 8.0', '3.0')
    """
    ends = dict.fromkeys(f"{value:.1f}" for value in (min(values), max(values)))
    return " to ".join(ends)


def command(asked: Mapping[str, Sequence[int]]) -> str:
    """Return the command that repeats the figures."""
    said = [" ".join([f"--{name}", *map(str, sizes)]) for name, sizes in asked.items()]
    return f"python benchmarks/scale.py {' '.join(said)}"


if __name__ == "__main__":
    main()

"""Two runs side by side, and whether their difference would hold on other images and seeds.

Images are paired where both runs kept right and wrong of each: the same test images in the same
order, which equal labels and equal photos (or features) of every test set say.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..pipeline.errors import UserError
from .metrics.intervals import paired_bootstrap
from .metrics.right_and_wrong import unpack
from .results import MethodResult, Results


@dataclass(frozen=True)
class ComparedMethod:
    """A method of one or both runs: mean and deviation by metric, and the paired intervals.

    ``difference`` is second minus first; ``intervals`` are 95 % of the paired bootstrap.
    """

    name: str
    first: dict[str, tuple[float, float]]
    second: dict[str, tuple[float, float]]
    difference: dict[str, float]
    intervals: dict[str, tuple[float, float]]


@dataclass
class Comparison:
    """One table of two runs: same task, data set and protocol."""

    task: str
    dataset: str
    protocol: str
    best: str
    metrics: list[str]
    methods: list[ComparedMethod]
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        return asdict(self)


def compare(first: str | Path, second: str | Path, *, resamples: int = 1000) -> list[Comparison]:
    """Compare the tables that two runs have in common.

    Args:
        first, second: run folders, or folders of several runs.
        resamples: of the paired bootstrap; 0 is none.

    Returns:
        One comparison a task, data set and protocol that both have.

    Raises:
        UserError: a run has no results, or the two have no table in common.
    """
    one, other = _tables(first), _tables(second)
    common = [key for key in one if key in other]
    if not common:
        told = [", ".join(sorted({" ".join(key) for key in keys})) for keys in (one, other)]
        raise UserError(
            f"{first} and {second} have no table in common: {told[0]}; {told[1]}.",
            "Compare runs of the same task, data set and protocol.",
        )
    return [compare_tables(one[key], other[key], resamples=resamples) for key in common]


def compare_tables(first: Results, second: Results, *, resamples: int = 1000) -> Comparison:
    """Compare two tables of the same task, data set and protocol, second minus first."""
    metrics = [name for name in first.metrics if name in second.metrics]
    notes = _differences_of_setting(first, second)
    reason = _why_unpaired(first, second)
    if reason:
        notes.append(f"No paired intervals: {reason}.")
    elif _same_images(first, second) is None:
        notes.append(
            "Whether both were tested on the same images is known of their labels alone: the files"
            " are not recorded in both."
        )
    names = [m.name for m in first.methods if m.group != "published"]
    names += [m.name for m in second.methods if m.group != "published" and m.name not in names]
    rows = []
    for name in names:
        a, b = _method(first, name), _method(second, name)
        intervals: dict[str, tuple[float, float]] = {}
        if a and b and not reason and resamples:
            intervals = _intervals(first, a, b, metrics, resamples)
        rows.append(
            ComparedMethod(
                name, _cells(a, metrics), _cells(b, metrics), _gaps(a, b, metrics), intervals
            )
        )
    best = first.best if first.best in metrics else metrics[-1] if metrics else ""
    return Comparison(first.task, first.dataset, first.protocol, best, metrics, rows, notes)


def _tables(run: str | Path) -> dict[tuple[str, str, str], Results]:
    paths = sorted(Path(run).glob("**/results/*.json"))
    if not paths:
        raise UserError(f"{run} has no results.", "Make some with aape train or aape eval.")
    tables = [Results.load(path) for path in paths]
    return {(table.task, table.dataset, table.protocol): table for table in tables}


def _method(table: Results, name: str) -> MethodResult | None:
    return next((method for method in table.methods if method.name == name), None)


def _cells(method: MethodResult | None, metrics: list[str]) -> dict[str, tuple[float, float]]:
    if method is None:
        return {}
    return {
        metric: (method.mean(metric), method.std(metric))
        for metric in metrics
        if not math.isnan(method.mean(metric))
    }


def _gaps(
    first: MethodResult | None, second: MethodResult | None, metrics: list[str]
) -> dict[str, float]:
    if first is None or second is None:
        return {}
    gaps = {metric: second.mean(metric) - first.mean(metric) for metric in metrics}
    return {metric: gap for metric, gap in gaps.items() if not math.isnan(gap)}


def _differences_of_setting(first: Results, second: Results) -> list[str]:
    """Say what differs besides the method: a reader must know before reading a difference."""
    told = []
    for name, a, b in (
        ("encoder", first.encoder, second.encoder),
        ("shots", first.details.get("shots"), second.details.get("shots")),
        ("seeds", first.details.get("seeds"), second.details.get("seeds")),
    ):
        if a != b:
            told.append(f"The runs differ in {name}: {a} and {b}.")
    return told


def _why_unpaired(first: Results, second: Results) -> str:
    """Return why images cannot be paired, or nothing where they can."""
    a, b = first.details.get("labels_sha256"), second.details.get("labels_sha256")
    if not a or not b:
        return "a run kept no right and wrong of each image (only classification does)"
    if a != b or _same_images(first, second) is False:
        return "the two were tested on other images"
    if len(first.details.get("seeds", [])) != len(second.details.get("seeds", [])):
        return "the runs have different numbers of seeds"
    return ""


def _same_images(first: Results, second: Results) -> bool | None:
    """Say whether the test images are the same ones; None where the two runs cannot tell.

    Features say it for one encoder alone, and older runs recorded neither.
    """
    a, b = first.details.get("images_sha256"), second.details.get("images_sha256")
    if not isinstance(a, dict) or not isinstance(b, dict) or a.keys() != b.keys():
        return None
    kinds = {str(told).partition(":")[0] for told in (*a.values(), *b.values())}
    if kinds != {"photos"} and (kinds != {"features"} or first.encoder != second.encoder):
        return None
    return a == b


def _intervals(
    table: Results,
    first: MethodResult,
    second: MethodResult,
    metrics: list[str],
    resamples: int,
) -> dict[str, tuple[float, float]]:
    """Return 95 % of second minus first for each test set, and for H where it is the summary."""
    sizes = table.details["test_images"]
    try:
        pairs = {
            test: tuple(
                np.stack([unpack(text, int(size)) for text in method.details["right"][test]])
                for method in (second, first)
            )
            for test, size in sizes.items()
            if all(test in method.details.get("right", {}) for method in (first, second))
        }
    except (ValueError, TypeError):
        return {}
    pairs = {test: pair for test, pair in pairs.items() if pair[0].shape == pair[1].shape}
    found = {}
    for test, (ours, theirs) in pairs.items():
        if test in metrics:
            found[test] = _rounded(
                paired_bootstrap([ours], [theirs], lambda v: v[0], resamples=resamples)
            )
    if "H" in metrics and {"base", "new"} <= set(pairs):
        ours, theirs = ([pairs[test][i] for test in ("base", "new")] for i in (0, 1))
        found["H"] = _rounded(paired_bootstrap(ours, theirs, _harmonic, resamples=resamples))
    return found


def _harmonic(values: Any) -> np.ndarray:
    base, new = values
    return 2 * base * new / np.maximum(base + new, 1e-12)


def _rounded(pair: tuple[float, float]) -> tuple[float, float]:
    return round(pair[0], 3), round(pair[1], 3)

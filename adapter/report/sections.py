"""One table as the report shows it: rows, intervals, figures, classes and photos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..published import published_average
from . import figures
from .thumbnails import data_folders, thumbnail

if TYPE_CHECKING:
    from ..results import MethodResult, Results

TITLES = {
    "classification": "Few-shot classification",
    "retrieval": "Image-text retrieval",
    "captioning": "Captioning",
    "vqa": "Visual question answering",
}
_ZERO_SHOT = ("zero-shot template", "zero-shot")


@dataclass
class TableRow:
    """A method: its cells as (mean, deviation), and its bar in percent of the scale."""

    name: str
    group: str
    cells: list[tuple[str, str]]
    best: bool
    share: float
    low: float
    high: float
    seeds: list[list[str]] = field(default_factory=list)


def section(
    results: Results, name: str, root: str | Path | None = None, pictures: bool = True
) -> dict[str, Any]:
    """Return what the template shows of a table.

    Args:
        results: the table. name: of the section, unique in the page.
        root: folder of the data set's photos, else where it lies on this machine.
        pictures: draw figures; a page of very many tables goes without.
    """
    metric = results.best or results.metrics[-1]
    metrics = [metric, *[other for other in results.metrics if other != metric]]
    measured = [method for method in results.methods if method.group != "published"]
    means = [method.mean(metric) for method in measured]
    top = max((mean for mean in means if not math.isnan(mean)), default=math.nan)
    scale = 100.0 if results.units.get(metric) == "%" else max(top, 1e-9) * 1.1
    folders = data_folders(results.dataset, root) if results.samples else []
    samples = [_sample(sample, folders) for sample in results.samples]
    return {
        "id": name,
        "title": results.title or f"{TITLES.get(results.task, results.task)} · {results.dataset}",
        "task": results.task,
        "protocol": results.protocol,
        "dataset": results.dataset,
        "encoder": results.encoder,
        "metrics": [
            f"{each} ({results.units[each]})" if results.units.get(each) else each
            for each in metrics
        ],
        "best": metric,
        "headline": _headline(results, metric),
        "rows": [_row(results, method, metrics, top, scale) for method in results.methods],
        "notes": results.all_notes(),
        "intervals": _intervals(results, metric),
        "classes": _classes(results),
        "confused": _confused(results),
        "figures": _figures(results, name) if pictures else [],
        "samples": samples,
        "sampled": results.details.get("samples", ""),
        "hidden": sum(bool(s.get("image")) for s in results.samples)
        - sum(bool(sample["image"]) for sample in samples),
    }


def _row(
    results: Results, method: MethodResult, metrics: Sequence[str], top: float, scale: float
) -> TableRow:
    mean, std = method.mean(metrics[0]), method.std(metrics[0])
    known = not math.isnan(mean)
    per_seed = [
        [f"{row['seed']:g}" if "seed" in row else "–"]
        + [f"{row[name]:.2f}" if name in row else "–" for name in metrics]
        for row in method.seeds
    ]
    cells = [results.cell(method, name, "|").partition("|") for name in metrics]
    return TableRow(
        name=method.name,
        group=method.group,
        cells=[(text, std_text) for text, _, std_text in cells],
        best=known and mean == top and method.group != "published",
        share=_percent(mean, scale) if known else 0.0,
        low=_percent(mean - std, scale) if known else 0.0,
        high=_percent(mean + std, scale) if known else 0.0,
        seeds=per_seed,
    )


def _percent(value: float, scale: float) -> float:
    return round(min(max(100.0 * value / scale, 0.0), 100.0), 2)


def _headline(results: Results, metric: str) -> str:
    """Say in one sentence how ours stands to the best baseline, with the interval if there is."""
    ours = next((m for m in results.methods if m.group == "ours"), None)
    others = [
        m for m in results.methods if m.group == "baseline" and not math.isnan(m.mean(metric))
    ]
    if ours is None or not others or math.isnan(ours.mean(metric)):
        return ""
    best = max(others, key=lambda method: method.mean(metric))
    gap = ours.mean(metric) - best.mean(metric)
    text = (
        f"{ours.name}: {metric} {ours.mean(metric):.1f}; best baseline, {best.name}:"
        f" {best.mean(metric):.1f} ({gap:+.1f}"
    )
    interval = results.intervals.get(f"{ours.name} - {best.name}", {}).get(metric)
    if interval:
        text += f", 95 % interval {interval[0]:+.1f} to {interval[1]:+.1f}"
    return text + ")."


def _intervals(results: Results, metric: str) -> list[dict[str, Any]]:
    rows = []
    for name, by_metric in results.intervals.items():
        if metric not in by_metric:
            continue
        low, high = by_metric[metric]
        verdict = "higher" if low > 0 else "lower" if high < 0 else "no difference shown"
        rows.append({"name": name, "low": low, "high": high, "verdict": verdict})
    return rows


def _first(results: Results) -> MethodResult | None:
    return next((m for m in results.methods if m.group == "ours"), None)


def _zero_shot(results: Results) -> MethodResult | None:
    return next((m for m in results.methods if m.name in _ZERO_SHOT), None)


def _classes(results: Results) -> list[dict[str, Any]]:
    """Return accuracy by class a test set, worst first, zero-shot CLIP's beside it."""
    ours, plain = _first(results), _zero_shot(results)
    found = ours.details.get("per_class") if ours else None
    if not isinstance(found, dict):
        return []
    tables = []
    for test, values in found.items():
        other = plain.details.get("per_class", {}).get(test, {}) if plain else {}
        rows = [
            {"name": _class_name(key), "value": value, "zero_shot": other.get(key)}
            for key, value in values.items()
            if value is not None
        ]
        tables.append({"test": test, "rows": sorted(rows, key=lambda row: row["value"])})
    return tables


def _class_name(key: str) -> str:
    """Names may repeat, so a table's keys are ``"12 missile"``: the position comes first."""
    position, _, name = key.partition(" ")
    return name if position.isdecimal() and name else key


def _confused(results: Results) -> list[dict[str, Any]]:
    ours = _first(results)
    found = ours.details.get("confusion", {}) if ours else {}
    return [
        {"test": test, "rows": values["most_confused"]}
        for test, values in found.items()
        if values.get("most_confused")
    ]


def _figures(results: Results, name: str) -> list[dict[str, str]]:
    """Return the figures that this table can fill, each with its caption."""
    made: list[tuple[str, str]] = []
    if {"base", "new"} <= set(results.metrics):
        comparable = any(m.group == "published" for m in results.methods)
        averages = published_average(results.encoder) if comparable else []
        caption = "Base against new classes; grey lines join points of equal H."
        if averages:
            caption += " Diamonds are published; hollow ones are means over eleven data sets."
        made.append((figures.base_against_new(results.methods, f"{name}-new", averages), caption))
    ours, plain = _first(results), _zero_shot(results)
    for method, which, title in (
        (ours, "before", "before calibration"),
        (ours, "after", "after calibration"),
        (plain, "after", "zero-shot CLIP"),
    ):
        bins = method.details.get("reliability", {}).get(which) if method else None
        if method and bins:
            errors = bins.get("ece") or method.details.get("ece") or []
            ece = sum(errors) / len(errors) if errors else None
            key = f"{name}-sure-{len(made)}"
            caption = f"Reliability, {title}: dots on the line are as sure as they are right."
            made.append((figures.reliability(bins, key, title, ece), caption))
    for test, values in (ours.details.get("confusion", {}) if ours else {}).items():
        labels = [_class_name(key) for key in ours.details["per_class"].get(test, {})]  # type: ignore[union-attr]
        if values.get("matrix"):
            key = f"{name}-confusion-{len(made)}"
            caption = f"Confusion on {test}: rows are true classes, columns what was answered."
            made.append((figures.confusion(values["matrix"], labels, key), caption))
    return [{"svg": svg, "caption": caption} for svg, caption in made if svg]


def _sample(sample: dict[str, Any], folders: Sequence[Path]) -> dict[str, Any]:
    shown = {key: value for key, value in sample.items() if key not in ("image", "good")}
    return {
        "image": thumbnail(sample.get("image"), folders),
        "good": bool(sample.get("good", True)),
        "alt": f"Photo of {sample['truth']}" if isinstance(sample.get("truth"), str) else "Photo",
        "lines": [
            (key, " · ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
            for key, value in shown.items()
        ],
    }

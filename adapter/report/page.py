"""Fill the report's template. All text is data from users and models, so everything is escaped."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import UserError
from ...pipeline.files import read_json, write_text

if TYPE_CHECKING:
    from ..results import MethodResult, Results

_THUMBNAIL = 144  # pixels on the longer side, twice the printed size of small images
_TITLES = {
    "classification": "Few-shot classification",
    "retrieval": "Image-text retrieval",
    "captioning": "Captioning",
    "vqa": "Visual question answering",
}


@dataclass
class Stage:
    """One step of the work behind the report: what was done, how long it took, what was reused."""

    name: str
    seconds: float
    detail: str = ""
    reused: bool = False


@dataclass
class _Row:
    name: str
    group: str
    cells: list[str]
    best: bool
    share: float
    low: float
    high: float
    seeds: list[list[str]] = field(default_factory=list)


def write_report(
    path: str | Path,
    results: Sequence[Results],
    *,
    title: str,
    summary: str = "",
    stages: Sequence[Stage] = (),
    prompts: Sequence[tuple[str, list[str]]] = (),
    environment: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write the report and return its path.

    Args:
        results: the tables, one section each, in this order.
        stages: what was done and how long it took.
        prompts: for some classes, ``(class name, a few kept prompts of its bank)``.
        environment: as :func:`aape.adapter.run.environment` gives it.
        notes: sentences that hold for the whole report.
    """
    from jinja2 import Environment, StrictUndefined

    template = (
        files(__name__.rpartition(".")[0]).joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = page.from_string(template).render(
        title=title,
        summary=summary,
        sections=[_section(result) for result in results],
        stages=stages,
        seconds=duration(sum(stage.seconds for stage in stages)),
        duration=duration,
        prompts=prompts,
        environment=environment or {},
        notes=notes,
    )
    write_text(path, text)
    return Path(path)


def report_run(folder: str | Path) -> tuple[list[Results], Path]:
    """Write ``report.html`` for a run folder from the tables in it; return them and its path.

    Raises:
        UserError: the folder has no results.
    """
    from ..results import Results

    run = Path(folder)
    results = [Results.load(path) for path in sorted(run.glob("**/results/*.json"))]
    results.sort(key=lambda table: [*_TITLES, table.task].index(table.task))
    if not results:
        raise UserError(f"{run} has no results.", "Make some with aape train or aape eval.")
    known = run / "environment.json"
    path = write_report(
        run / "report.html",
        results,
        title=f"aape: {run.resolve().name}",
        environment=read_json(known) if known.exists() else None,
    )
    return results, path


def report(run: str | Path) -> list[Results]:
    """Write ``report.html`` for a run folder from the tables in it, and return these.

    Raises:
        UserError: the folder has no results.
    """
    return report_run(run)[0]


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``"8 s"``, ``"3 min 05 s"``, ``"1 h 02 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _section(results: Results) -> dict[str, Any]:
    metric = results.best or results.metrics[-1]
    measured = [method for method in results.methods if method.group != "published"]
    means = [method.mean(metric) for method in measured]
    top = max((mean for mean in means if not math.isnan(mean)), default=math.nan)
    scale = 100.0 if results.units.get(metric) == "%" else max(top, 1e-9) * 1.1
    return {
        "title": results.title or f"{_TITLES.get(results.task, results.task)} · {results.dataset}",
        "task": results.task,
        "protocol": results.protocol,
        "dataset": results.dataset,
        "encoder": results.encoder,
        "metrics": [
            f"{name} ({results.units[name]})" if results.units.get(name) else name
            for name in results.metrics
        ],
        "best": metric,
        "rows": [_row(results, method, metric, top, scale) for method in results.methods],
        "notes": results.all_notes(),
        "intervals": _intervals(results, metric),
        "classes": _classes(results),
        "samples": [_sample(sample) for sample in results.samples],
        "sampled": results.details.get("samples", ""),
    }


def _row(results: Results, method: MethodResult, metric: str, top: float, scale: float) -> _Row:
    mean, std = method.mean(metric), method.std(metric)
    known = not math.isnan(mean)
    per_seed = [
        [f"{row['seed']:g}" if "seed" in row else "–"]
        + [f"{row[name]:.2f}" if name in row else "–" for name in results.metrics]
        for row in method.seeds
    ]
    return _Row(
        name=method.name,
        group=method.group,
        cells=[results.cell(method, name) for name in results.metrics],
        best=known and mean == top and method.group != "published",
        share=_percent(mean, scale) if known else 0.0,
        low=_percent(mean - std, scale) if known else 0.0,
        high=_percent(mean + std, scale) if known else 0.0,
        seeds=per_seed,
    )


def _percent(value: float, scale: float) -> float:
    return round(min(max(100.0 * value / scale, 0.0), 100.0), 2)


def _intervals(results: Results, metric: str) -> list[dict[str, Any]]:
    rows = []
    for name, by_metric in results.intervals.items():
        if metric not in by_metric:
            continue
        low, high = by_metric[metric]
        verdict = "higher" if low > 0 else "lower" if high < 0 else "no difference shown"
        rows.append({"name": name, "low": low, "high": high, "verdict": verdict})
    return rows


def _classes(results: Results) -> list[dict[str, Any]]:
    """Return per-class accuracy, worst first, where a table carries it."""
    per_class = results.details.get("per_class") or {}
    rows = [{"name": name, "value": value} for name, value in per_class.items()]
    return sorted(rows, key=lambda row: row["value"])


def _sample(sample: dict[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in sample.items() if key not in ("image", "good")}
    return {
        "image": _thumbnail(sample.get("image")),
        "good": bool(sample.get("good", True)),
        "lines": [
            (key, " · ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
            for key, value in shown.items()
        ],
    }


def _thumbnail(image: str | Path | None) -> str:
    """Return a small PNG as a data URI; an empty string where there is no picture to show."""
    if not image or not Path(image).is_file():
        return ""
    from PIL import Image

    from ...pipeline.pictures import PictureError, read_picture

    try:
        small = read_picture(image).image
    except PictureError:
        return ""
    if max(small.size) < _THUMBNAIL:
        factor = _THUMBNAIL / max(small.size)
        size = (round(small.width * factor), round(small.height * factor))
        small = small.resize(size, Image.Resampling.NEAREST)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    out = io.BytesIO()
    small.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + html.escape(base64.b64encode(out.getvalue()).decode("ascii"))

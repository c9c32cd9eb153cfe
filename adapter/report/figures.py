"""The figures of the report: each a function from figures in a table to one inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .inline_svg import COLOURS, inline_svg, page_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..results import MethodResult

_NAMED = 12  # points with a name
_CLASSES = 20  # of a confusion matrix; more cannot be read
_GROUPS = {"ours": "ours", "control": "control", "published": "published"}
_MARKS = {"ours": "o", "control": "s", "published": "D", "baseline": "o"}


def base_against_new(
    methods: Sequence[MethodResult], name: str, averages: Sequence[MethodResult] = ()
) -> str:
    """Draw accuracy on base classes against new ones, with lines of equal H.

    Args:
        methods: rows of a table that have both, published ones among them.
        name: of the figure, unique in the page.
        averages: published means over eleven data sets, drawn hollow: another question.
    """
    points = [
        (method.mean("base"), method.mean("new"), method, hollow)
        for group, hollow in ((methods, False), (averages, True))
        for method in group
        if not math.isnan(method.mean("base") + method.mean("new"))
    ]
    if len(points) < 2:
        return ""
    with page_style():
        figure, axes = _figure(5.2, 3.9)
        x, y = [p[0] for p in points], [p[1] for p in points]
        for _, _, method, hollow in points:
            colour = COLOURS[_GROUPS.get(method.group, "base")]
            axes.plot(
                method.mean("base"), method.mean("new"), _MARKS.get(method.group, "o"),
                color=colour, markersize=8 if method.group == "ours" else 6,
                fillstyle="none" if hollow else "full", linestyle="none",
                zorder=4 if method.group == "ours" else 3,
            )  # fmt: skip
        x_range, y_range = _padded(x), _padded(y)
        axes.set(xlim=x_range, ylim=y_range, xlabel="base (%)", ylabel="new (%)")
        _equal_h(axes, x_range, y_range)
        named = sorted(points, key=lambda p: (p[2].group != "ours", -_h(p[0], p[1])))[:_NAMED]
        _names_beside(axes, [(p[0], p[1], _short(p[2].name, 26)) for p in named], y_range)
        best = max(points, key=lambda p: _h(p[0], p[1]))
        label = (
            f"Accuracy on base classes against new classes of {len(points)} methods; the highest"
            f" harmonic mean has {best[2].name}: base {best[0]:.1f}, new {best[1]:.1f} percent."
        )
        return inline_svg(figure, name, label)


def reliability(bins: dict[str, list], name: str, title: str, ece: float | None) -> str:
    """Draw confidence against accuracy: on the diagonal a classifier is as sure as it is right."""
    images = np.array(bins.get("images", []), dtype=float)
    if not len(images):
        return ""
    sure, right = np.array(bins["confidence"]), np.array(bins["accuracy"])
    with page_style():
        figure, axes = _figure(4.4, 3.4)
        axes.plot([0, 100], [0, 100], color=COLOURS["soft"], linewidth=1, dashes=(4, 3))
        for a, b in zip(sure, right):
            axes.plot([a, a], [a, b], color=COLOURS["bad"], linewidth=1.5, alpha=0.6)
        size = 12 + 150 * images / images.sum()
        axes.scatter(sure, right, s=size, color=COLOURS["ours"], zorder=3)
        axes.set(xlim=(0, 103), ylim=(0, 103), xlabel="confidence (%)", ylabel="accuracy (%)")
        axes.set_title(title if ece is None else f"{title}: ECE {ece:.1f}", loc="left")
        gap = "" if ece is None else f" Expected calibration error {ece:.1f} percent."
        told = f"Reliability of {title}: mean confidence against accuracy in {len(images)} bins."
        return inline_svg(figure, name, told + gap)


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str], name: str) -> str:
    """Draw counts (c, c), row true and column answered; of many classes the most confused."""
    counts = np.array(matrix, dtype=float)
    c = len(counts)
    if counts.ndim != 2 or counts.shape != (c, c) or c < 2 or len(names) != c:
        return ""
    wrong = counts - np.diag(np.diag(counts))
    if c > _CLASSES:
        kept = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:_CLASSES])
        counts, names = counts[np.ix_(kept, kept)], [names[i] for i in kept]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = len(counts)
    from matplotlib.patches import Rectangle

    with page_style():
        figure, axes = _figure(5.2, 5.0)
        for row, column in zip(*np.nonzero(counts)):
            colour = COLOURS["good" if row == column else "bad"]
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, facecolor=colour, linewidth=0,
                    alpha=0.12 + 0.88 * float(shares[row, column]),
                )
            )  # fmt: skip
            if side <= 14:
                text = f"{counts[row, column]:.0f}"
                ink = COLOURS["card" if shares[row, column] > 0.5 else "ink"]
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
        axes.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
        small = 9 if side <= 14 else 7.5
        shown = [_short(text, 18) for text in names]
        axes.set_xticks(range(side), shown, rotation=90, fontsize=small)
        axes.set_yticks(range(side), shown, fontsize=small)
        axes.set(xlabel="answered", ylabel="true")
        part = f"the {side} most confused of {c}" if c > side else f"{c}"
        total = int(np.array(matrix).sum())
        right = int(np.trace(np.array(matrix)))
        return inline_svg(
            figure,
            name,
            f"Confusion matrix over {part} classes: {right} of {total} images are right;"
            " the table beside it lists the most frequent confusions.",
        )


def lines(
    series: dict[str, list[tuple[float, float, float]]],
    name: str,
    *,
    x: str,
    y: str,
    label: str,
    powers: bool = False,
) -> str:
    """Draw ``(x, mean, deviation)`` of some series; the first is ours, later ones are paler."""
    shown = {key: points for key, points in series.items() if len(points) > 1}
    if not shown:
        return ""
    with page_style():
        figure, axes = _figure(5.2, 3.6)
        ends = []
        for place, (key, points) in enumerate(shown.items()):
            at, mean, std = (np.array(column, dtype=float) for column in zip(*points))
            colour = COLOURS["ours" if place == 0 else "base"]
            axes.plot(
                at, mean, color=colour, linewidth=2.4 if place == 0 else 1.2,
                marker="o" if len(points) < 20 else "", markersize=4, zorder=3 if place == 0 else 2,
            )  # fmt: skip
            if place == 0:
                axes.fill_between(at, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
            ends.append((float(at[-1]), float(mean[-1]), _short(key, 26)))
        if powers:
            ticks = sorted({point[0] for points in shown.values() for point in points})
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set(xlabel=x, ylabel=y)
        _names_beside(axes, ends[:_NAMED], axes.get_ylim())
        return inline_svg(figure, name, label)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _names_beside(
    axes: Axes, points: Sequence[tuple[float, float, str]], y_range: tuple[float, float]
) -> None:
    """Write names right of the axes, none over another, each with a thin line to its point."""
    low, high = y_range
    step = (high - low) / 13
    ordered = sorted(points, key=lambda point: point[1])
    heights: list[float] = []
    for _, y, _ in ordered:
        heights.append(max(y, heights[-1] + step) if heights else max(y, low))
    roof = high
    for i in reversed(range(len(heights))):  # what was pushed out at the top moves down again
        heights[i] = min(heights[i], roof)
        roof = heights[i] - step
    for (x, y, text), at in zip(ordered, heights):
        axes.annotate(
            text, (x, y), xytext=(1.03, (at - low) / (high - low)), textcoords="axes fraction",
            fontsize=9, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": COLOURS["line"], "linewidth": 0.8},
        )  # fmt: skip


def _equal_h(axes: Axes, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
    base, new = np.meshgrid(np.linspace(*x_range, 60), np.linspace(*y_range, 60))
    h = 2 * base * new / np.maximum(base + new, 1e-9)
    step = next((s for s in (1, 2, 5, 10, 20) if (h.max() - h.min()) / s <= 6), 20)
    levels = np.arange(math.ceil(h.min() / step) * step, h.max(), step)
    if len(levels):
        drawn = axes.contour(
            base, new, h, levels=levels, colors=COLOURS["line"], linewidths=1, zorder=1
        )
        axes.clabel(drawn, fmt="H %g", fontsize=8, colors=COLOURS["soft"])


def _h(base: float, new: float) -> float:
    return 2 * base * new / (base + new) if base + new > 0 else 0.0


def _padded(values: Sequence[float]) -> tuple[float, float]:
    pad = max(1.0, 0.12 * (max(values) - min(values)))
    return max(min(values) - pad, 0.0), min(max(values) + pad, 102.0)


def _short(text: Any, width: int) -> str:
    clean = "".join(c if c.isprintable() else " " for c in str(text))
    return clean if len(clean) <= width else clean[: width - 1] + "…"

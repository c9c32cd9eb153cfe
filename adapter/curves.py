"""Learning curves: the ranking metric against the number of shots, one line a method."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from ..pipeline.files import atomic_path, write_text
from ..pipeline.formulas import harmless
from .results import Results

_LONGEST_NAME = 50
_NAMED = 7  # lines with a colour and a name; the others stay grey
_WIDTH, _HEIGHT = 7.2, 3.8  # inches


def write_curves(tables: Sequence[Results], out: Path) -> list[Path]:
    """Write ``curves-<data set>.svg`` and ``.csv``: mean over seeds, a band of one deviation.

    Args:
        tables: of several numbers of shots; those of one data set make one figure.
        out: folder of the files.

    Returns:
        The figures.
    """
    groups: dict[str, list[Results]] = {}
    for table in tables:
        groups.setdefault(table.dataset, []).append(table)
    figures = []
    for dataset, group in groups.items():
        ordered = sorted(group, key=images_a_class)
        lines = curves(ordered)
        metric = ordered[0].best
        rows = ["method,shots,mean,std"]
        for name, points in lines.items():
            quoted = '"' + harmless(name).replace('"', '""') + '"'
            rows += [f"{quoted},{shots},{mean:.4f},{std:.4f}" for shots, mean, std in points]
        name = _file_name(dataset)
        write_text(out / f"curves-{name}.csv", "\n".join(rows) + "\n")
        figure = out / f"curves-{name}.svg"
        _draw(lines, f"{dataset}, {ordered[0].protocol}", f"{metric} (%)", figure)
        figures.append(figure)
    return figures


def _file_name(dataset: str) -> str:
    """Return a data set's name as that of a file; a file of features may say any.

    >>> _file_name("imagenet-v2"), _file_name("x/../../../etc/x")
    ('imagenet-v2', 'x_.._.._.._etc_x')
    """
    return re.sub(r"[^\w.-]+", "_", dataset)[:_LONGEST_NAME]


def images_a_class(table: Results) -> int:
    """Return the shots of a table; of ``--shots all`` the mean number of images a class."""
    shots = table.details["shots"]
    return int(round(table.details["images_a_class"]) if shots == "all" else shots)


def curves(tables: Sequence[Results]) -> dict[str, list[tuple[int, float, float]]]:
    """Return ``(shots, mean, deviation)`` of the ranking metric by method, ours first.

    Tables of several recipes hold the same baselines; each is taken once.
    """
    lines: dict[str, dict[int, tuple[int, float, float]]] = {}
    for table in tables:
        shots = images_a_class(table)
        for method in table.methods:
            mean = method.mean(table.best)
            if method.group != "published" and not math.isnan(mean):
                point = (shots, mean, method.std(table.best))
                lines.setdefault(method.name, {})[shots] = point
    return {name: list(points.values()) for name, points in lines.items()}


def _draw(
    lines: dict[str, list[tuple[int, float, float]]], title: str, label: str, path: Path
) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    # ours, then the strongest at the largest number of shots
    ranked = sorted(lines, key=lambda name: (not name.startswith("ours"), -lines[name][-1][1]))
    for name in reversed(ranked):
        shots, means, stds = (list(column) for column in zip(*lines[name]))
        place = ranked.index(name)
        named = place < _NAMED
        axes.plot(
            shots,
            means,
            marker="o",
            markersize=3,
            linewidth=2.2 if place == 0 else 1.2,
            color=f"C{place}" if named else "0.8",
            label=name if named else "_",
            zorder=3 if named else 1,
        )
        if place == 0:
            low = [mean - std for mean, std in zip(means, stds)]
            high = [mean + std for mean, std in zip(means, stds)]
            axes.fill_between(shots, low, high, color="C0", alpha=0.15, linewidth=0)
    ticks = sorted({shots for points in lines.values() for shots, _, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set(title=title, xlabel="shots", ylabel=label)
    handles, labels = axes.get_legend_handles_labels()
    place = "outside right upper"
    figure.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8, loc=place)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary, mpl.rc_context({"svg.hashsalt": "aape"}):
        figure.savefig(temporary, format="svg", metadata={"Date": None})

"""The table every task ends in: methods by metrics, with the rows of every seed."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..pipeline.errors import UserError
from ..pipeline.formulas import harmless
from ..pipeline.store import read_record, write_record

SCHEMA = 1
# a baseline of one's own may have any name, and \input would read a file
_TEX = str.maketrans(
    {**{sign: f"\\{sign}" for sign in "%_&#{}$"}, "\\": r"\textbackslash{}",
     "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)  # fmt: skip
_LARGEST = 1e15  # of a figure: beyond any metric, number of a seed included


@dataclass
class MethodResult:
    """What one method reached.

    Attributes:
        name: as printed, for example ``"zero-shot template"``.
        seeds: one dict a seed, ``{"seed": 1, "base": 92.1, "new": 64.0, "H": 75.5}``.
        group: ``"ours"``, ``"baseline"``, ``"control"`` or ``"published"``.
        note: what a reader must know to compare fairly, shown under the table.
        parameters: trained parameters, if any.
        seconds: training time, mean over seeds.
        details: anything for the JSON alone: per-class accuracy, confusion, chosen settings.
    """

    name: str
    seeds: list[dict[str, float]]
    group: str = "baseline"
    note: str = ""
    parameters: int | None = None
    seconds: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def mean(self, metric: str) -> float:
        """Return the mean over the seeds that have the metric; ``nan`` if none has."""
        values = [row[metric] for row in self.seeds if row.get(metric) is not None]
        return sum(values) / len(values) if values else math.nan

    def std(self, metric: str) -> float:
        """Return the sample standard deviation over seeds; 0 for one seed, ``nan`` for none."""
        values = [row[metric] for row in self.seeds if row.get(metric) is not None]
        if len(values) < 2:
            return 0.0 if values else math.nan
        mean = sum(values) / len(values)
        return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


@dataclass
class Results:
    """One table: a task on a data set under a protocol.

    Attributes:
        task: ``classification``, ``retrieval``, ``captioning`` or ``vqa``.
        protocol: name and version, for example ``"base2new/1"``.
        metrics: column order; ``units`` maps a metric to ``"%"`` or ``""``.
        best: which metric ranks methods; higher is better for every metric in the table.
        notes: sentences under the table (``lite`` encoder, own splits, small test set, …).
        intervals: ``{"ours - baseline": {"metric": [low, high]}}``, paired bootstrap, 95 %.
        samples: examples for the report: ``{"image": data URI or path, "truth": …, "output": …}``.
    """

    task: str
    protocol: str
    dataset: str
    encoder: str
    metrics: list[str]
    methods: list[MethodResult]
    best: str = ""
    title: str = ""
    units: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    intervals: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def method(self, name: str) -> MethodResult:
        """Return the method of that name; ``KeyError`` if the table has none."""
        for method in self.methods:
            if method.name == name:
                return method
        raise KeyError(name)

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, per-seed rows and mean ± deviation included."""
        value = asdict(self)
        for method, row in zip(self.methods, value["methods"]):
            row["summary"] = {
                metric: {"mean": method.mean(metric), "std": method.std(metric)}
                for metric in self.metrics
                if not math.isnan(method.mean(metric))
            }
        write_record(path, value)

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read a table written by :meth:`save`.

        Raises:
            UserError: the file is absent, damaged, or of another schema version.
        """
        value = read_record(path)
        if value.get("schema") != SCHEMA:
            raise UserError(f"{path} is not a results file of schema {SCHEMA}.")
        try:
            methods = []
            for row in value.pop("methods"):
                row.pop("summary", None)
                methods.append(MethodResult(**row))
            table = cls(methods=methods, **value)
            # as it is: nothing is turned into another type, it is only looked at
            TypeAdapter(cls).validate_python(_without_null(asdict(table)))
            _require_drawable(table)
        except (ValidationError, TypeError, KeyError, AttributeError, ValueError) as error:
            why = str(error).splitlines()
            raise UserError(
                f"{path} is no table of results: {' '.join(why[:3])}.",
                "Restore it from a copy, or make it again.",
            ) from error
        return table

    def cell(self, method: MethodResult, metric: str, plus_minus: str = " ± ") -> str:
        """Return ``mean ± std`` as text, ``"–"`` where the method has no such figure.

        Where all seeds had the same images, what is the same for all has no deviation to show.
        """
        mean = method.mean(metric)
        if math.isnan(mean):
            return "–"
        text, std = f"{mean:.2f}", method.std(metric)
        shown = len(method.seeds) > 1 and not (std == 0 and self.details.get("same_images"))
        return f"{text}{plus_minus}{std:.2f}" if shown else text

    def to_markdown(self) -> str:
        """Return a Markdown table, the best mean of the ranking metric in bold, notes below."""
        head = ["method", *self.metrics]
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        ranked = [m for m in self.methods if m.group != "published"]
        scores = [method.mean(self.best) for method in ranked] if self.best else []
        top = max((score for score in scores if not math.isnan(score)), default=math.nan)
        for method in self.methods:
            cells = [self.cell(method, metric) for metric in self.metrics]
            bold = self.best and method in ranked and method.mean(self.best) == top
            name = method.name.replace("|", r"\|")
            name = f"**{name}**" if bold else name
            lines.append("| " + " | ".join([name, *cells]) + " |")
        return "\n".join([*lines, "", *[f"- {note}" for note in self.all_notes()]]) + "\n"

    def all_notes(self) -> list[str]:
        """Return the table's notes followed by the methods' own."""
        return self.notes + [f"{m.name}: {m.note}" for m in self.methods if m.note]

    def to_csv(self) -> str:
        """Return one line a method and seed, for spreadsheets and pandas."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["task", "protocol", "dataset", "encoder", "method", "seed", *self.metrics])
        lead = [self.task, self.protocol, self.dataset, self.encoder]
        for method in self.methods:
            for row in method.seeds:
                values = [row.get(metric, "") for metric in self.metrics]
                cells = [*lead, method.name, row.get("seed", ""), *values]
                writer.writerow([harmless(cell) for cell in cells])
        return out.getvalue()

    def to_latex(self) -> str:
        """Return a ``tabular`` with booktabs rules."""
        plus_minus = r" \pm "
        head = [text.translate(_TEX) for text in ("method", *self.metrics)]
        rows = [" & ".join(head) + r" \\", r"\midrule"]
        for method in self.methods:
            cells = [f"${self.cell(method, metric, plus_minus)}$" for metric in self.metrics]
            rows.append(" & ".join([method.name.translate(_TEX), *cells]) + r" \\")
        body = "\n".join([r"\toprule", *rows, r"\bottomrule"])
        return f"\\begin{{tabular}}{{l{'r' * len(self.metrics)}}}\n{body}\n\\end{{tabular}}\n"


def _require_drawable(table: Results) -> None:
    """Look at what the types alone do not say, and what every table that is written keeps to.

    Raises:
        ValueError: there is no method, a figure is beyond any, or an interval has not two ends.
    """
    if not table.methods or not table.metrics:
        raise ValueError("it has no methods or no metrics")
    figures = [value for method in table.methods for row in method.seeds for value in row.values()]
    figures += [end for ends in table.intervals.values() for pair in ends.values() for end in pair]
    if any(value is not None and abs(value) > _LARGEST for value in figures):
        raise ValueError(f"it has a figure beyond {_LARGEST:g}")
    if any(len(pair) != 2 for ends in table.intervals.values() for pair in ends.values()):
        raise ValueError("an interval has two ends")
    shots = table.details.get("shots", 1)
    images = table.details.get("images_a_class") if shots == "all" else shots
    if not isinstance(images, int | float) or not 0 <= images <= _LARGEST:
        raise ValueError("details.shots is no number")


def _without_null(value: Any) -> Any:
    """Leave out what is null: a figure that was not finite is written so."""
    if isinstance(value, dict):
        return {name: _without_null(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_null(item) for item in value if item is not None]
    return value

"""Predictions in a file: CSV, JSON, JSON lines or Parquet, as its name says."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.errors import UserError
from ..pipeline.files import atomic_path, write_text
from ..pipeline.formulas import harmless
from ..pipeline.terminal import json_text

if TYPE_CHECKING:
    from .predict import Prediction

FORMATS = (".csv", ".json", ".jsonl", ".parquet")


def check_format(path: str | Path) -> None:
    """Stop, before any work, where the name of the file says no format.

    Raises:
        UserError: its ending is none of :data:`FORMATS`.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise UserError(
            f"What format is {path} to have?", f"Its name must end in {', '.join(FORMATS)}."
        )


def write_predictions(path: str | Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions in the format that the ending names.

    Raises:
        UserError: the ending is unknown, or the file cannot be written.
    """
    check_format(path)
    kind = Path(path).suffix.lower()
    rows = [prediction.as_dict() for prediction in predictions]
    if kind == ".json":
        write_text(path, json_text(rows, indent=2) + "\n")
    elif kind == ".jsonl":
        write_text(path, "".join(json_text(row) + "\n" for row in rows))
    elif kind == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        head, *body = table_rows(predictions)
        columns = {
            name: [None if row[i] == "" else _spelled(row[i]) for row in body]
            for i, name in enumerate(head)
        }
        with atomic_path(path) as temporary:
            pq.write_table(pa.table(columns), temporary)
    else:
        write_text(path, to_csv(predictions))


def _spelled(cell: Any) -> Any:
    """Return text with what is no character spelled out: a file's name may be any bytes."""
    return cell.encode("utf-8", "backslashreplace").decode() if isinstance(cell, str) else cell


def to_csv(predictions: Sequence[Prediction]) -> str:
    """Return a table: the path, label and probability of each rank, why an image has none."""
    stream = io.StringIO()
    rows = ([harmless(cell) for cell in row] for row in table_rows(predictions))
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def table_rows(predictions: Sequence[Prediction]) -> list[list[Any]]:
    """Return a heading and one row an image, all of one length; empty text where nothing is."""
    ranks = max((len(row.labels) for row in predictions), default=0)
    head = ["path"]
    for rank in range(1, ranks + 1):
        head += [f"label_{rank}", f"p_{rank}"]
    rows = [[*head, "error"]]
    for row in predictions:
        cells: list[Any] = [str(row.path or "")]
        for label, p in zip(row.labels, row.probabilities):
            cells += [label, p]
        rows.append([*cells, *[""] * (len(head) - len(cells)), row.error])
    return rows

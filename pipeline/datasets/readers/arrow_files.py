"""Parquet and Arrow files: schema, columns, and the features that Hugging Face wrote into them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ...files import require_regular

if TYPE_CHECKING:
    import pyarrow as pa

ARROW_SUFFIXES = (".parquet", ".arrow")


def read_schema(path: Path) -> pa.Schema:
    """Read the columns of a Parquet or Arrow file and its metadata without its rows.

    Raises:
        UserError: the file is absent or of another format.
    """
    from pyarrow import ArrowException, parquet

    if path.suffix.lower() != ".parquet":
        return read_arrow(path).schema
    try:
        require_regular(path)
        return parquet.read_schema(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (ArrowException, OSError, ValueError) as error:  # OSError: a damaged footer
        raise _damaged(path, error) from error


def read_arrow(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet or Arrow file.

    Raises:
        UserError: the file is absent, of another format, or lacks a column.
    """
    import pyarrow as pa

    try:
        require_regular(path)
        if columns is not None and path.suffix.lower() == ".parquet":
            _require(columns, read_schema(path).names, path)
        table = _read_any(path, columns)
        table.validate(full=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if columns is None:
        return table
    _require(columns, table.column_names, path)
    return table.select(columns)


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0][:200]
    return UserError(f"{path} cannot be read as a table: {reason.rstrip('.')}.")


def _require(columns: list[str], present: list[str], path: Path) -> None:
    absent = [name for name in columns if name not in present]
    if absent:
        raise UserError(
            f"{path} has no column {', '.join(map(repr, absent))}.",
            f"Its columns: {', '.join(present)}.",
        )


def _read_any(path: Path, columns: list[str] | None) -> pa.Table:
    import pyarrow as pa
    from pyarrow import ipc, parquet

    suffix = path.suffix.lower()
    if suffix == ".arrow":
        with pa.memory_map(str(path)) as source:
            try:
                return ipc.open_stream(source).read_all()
            except pa.ArrowInvalid:
                return ipc.open_file(source).read_all()
    if suffix == ".parquet":
        return parquet.read_table(path, columns=columns)
    raise UserError(f"{path} is no table.", "Known: csv, tsv, jsonl, json, parquet, arrow.")


def hugging_face_features(schema: pa.Schema) -> dict[str, Any]:
    """Return the features that the ``datasets`` library wrote into the metadata of a table."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return {}
    try:
        features = json.loads(metadata)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def class_names(features: dict[str, Any], column: str) -> list[str]:
    """Return the names of a ClassLabel, or none where a column is no ClassLabel.

    A list of ClassLabel is one too, written in either of the ways that ``datasets`` has for it.
    """
    feature = features.get(column)
    if isinstance(feature, list):
        feature = feature[0] if feature else None
    while isinstance(feature, dict) and "feature" in feature:
        feature = feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, dict):  # older releases wrote {"0": "cat", …}, in any order
        by_number = {str(number): name for number, name in names.items()}
        names = [by_number.get(str(number)) for number in range(len(names))]
        names = [] if None in names else names
    return [str(name) for name in names] if isinstance(names, list) else []

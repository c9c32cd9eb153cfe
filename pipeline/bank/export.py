"""A bank in the formats of other tools. Exports hold what the format can hold; banks hold all."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError, unknown_name
from ..files import atomic_folder, atomic_path, write_json, write_text
from ..formulas import harmless
from ..leftovers import sweep
from .bank import PromptBank
from .card import bank_card
from .schema import COLUMNS


def export_bank(bank: PromptBank, kind: str, out: str | Path) -> list[str]:
    """Write the bank to ``out`` as ``cupl-json``, ``csv``, ``parquet`` or ``hf``.

    Returns:
        Notes for the user on what the format could not keep.

    Raises:
        UserError: the format is unknown, or ``out`` cannot be written.
    """
    if kind not in FORMATS:
        raise unknown_name("export format", kind, FORMATS)
    out = Path(out)
    if out.resolve() == bank.path.resolve():
        raise UserError(f"{out} is the bank itself.", "Choose another name.")
    return FORMATS[kind](bank, out)


def cupl_prompts(bank: PromptBank) -> tuple[dict[str, list[str]], list[str]]:
    """Return the kept texts by class name, as CuPL's files have them, and the names that repeat."""
    prompts: dict[str, list[str]] = {}
    repeated = []
    for part in bank.metadata.datasets:
        for class_id, name in enumerate(part.class_names):
            if name in prompts:
                repeated.append(name)
            prompts.setdefault(name, []).extend(bank.prompts(class_id, dataset=part.dataset))
    return prompts, repeated


def _cupl_json(bank: PromptBank, out: Path) -> list[str]:
    prompts, repeated = cupl_prompts(bank)
    write_json(out, prompts)
    notes = ["Kept prompts only; embeddings and origin are not part of this format."]
    if repeated:
        notes.append(
            f"{len(repeated)} class names repeat and share one key: "
            + ", ".join(json.dumps(name, ensure_ascii=False) for name in repeated[:5])
        )
    return notes


def _csv(bank: PromptBank, out: Path) -> list[str]:
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\r\n")  # RFC 4180
        writer.writerow(COLUMNS)
        for start, vectors in bank.vectors.groups():
            for row in bank.rows(start, start + len(vectors)).to_pylist():
                writer.writerow([_cell(row[name]) for name in COLUMNS])
    return ["Embeddings are left out: use parquet or hf for them."]


def _cell(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return "" if value is None else harmless(value)


def _parquet(bank: PromptBank, out: Path) -> list[str]:
    with atomic_path(out) as temporary:
        _write_plain(bank, temporary)
    return ["Plain Parquet: no checksums and no metadata. `aape bank` reads only its own files."]


def _write_plain(bank: PromptBank, path: Path) -> None:
    fields = [bank.schema.field(name).with_nullable(True) for name in COLUMNS]
    schema = pa.schema([*fields, pa.field("embedding", pa.list_(pa.float32()))])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for index in range(len(bank.footer.groups)):
            writer.write_table(bank.group_table(index).cast(schema))


def _hugging_face(bank: PromptBank, out: Path) -> list[str]:
    if out.is_dir():
        sweep(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"The folder {out} is not empty.", "Choose another, or empty it first.")
    front = ["---", "configs:", "- config_name: default", "  data_files: data/*.parquet"]
    front += ["tags:", "- aape", "- prompts", "- CLIP", "---", ""]
    with atomic_folder(out) as folder:
        (folder / "data").mkdir()
        _write_plain(bank, folder / "data" / "train-00000-of-00001.parquet")
        write_text(folder / "README.md", "\n".join(front) + bank_card(bank))
    return [f'Load it with: datasets.load_dataset("{out}")']


FORMATS: dict[str, Callable[[PromptBank, Path], list[str]]] = {
    "cupl-json": _cupl_json,
    "csv": _csv,
    "parquet": _parquet,
    "hf": _hugging_face,
}

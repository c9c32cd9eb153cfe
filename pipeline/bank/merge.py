"""Several banks into one: one encoder, the same classes for a shared data set, no prompt twice."""

# pyarrow.compute makes its functions at import, so they are unknown to the type checker:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import UserError
from ..leftovers import temporary_folder
from .bank import PromptBank
from .schema import BankDataset, BankMetadata, WrittenQueries
from .write import write_bank


def merge_banks(paths: Sequence[str | Path], out: str | Path) -> PromptBank:
    """Write a bank with the rows of all banks. A prompt id that occurs again is taken once.

    Class ids stay as they are within their data set. If ``out`` holds these rows already, it is
    left as it is: a merge that was killed before it built its index can be asked for again.

    Raises:
        UserError: encoders or class names differ, one id has two texts, or ``out`` is another file.
    """
    out = Path(out)
    banks = [PromptBank.open(path) for path in paths]
    if not banks:
        raise UserError("There is no bank to merge.", "Name two or more.")
    first = banks[0]
    datasets: dict[str, BankDataset] = {}
    versions: dict[str, str] = {}
    for bank in banks:
        _check_same_encoder(first, bank)
        versions = {**bank.metadata.tool_versions, **versions}
        for part in bank.metadata.datasets:
            known = datasets.setdefault(part.dataset, part)
            if known.class_names != part.class_names:
                raise UserError(
                    f"{bank.path} has other class names for {part.dataset} than the banks before "
                    "it, so its class ids mean other classes.",
                    "Make the banks from one manifest.",
                )
    table = _distinct(pa.concat_tables([bank.table for bank in banks]))
    main, *further = datasets.values()
    metadata = first.metadata.model_copy(
        update={
            "dataset": main.dataset,
            "manifest_hash": main.manifest_hash,
            "class_names": main.class_names,
            "further": further,
            "tool_versions": versions,
            "own_queries": _own_queries([bank.metadata.own_queries for bank in banks]),
        }
    )
    if out.exists():
        return _as_it_is(out, table, metadata)
    return write_bank(out, table, metadata)


def _own_queries(parts: Sequence[WrittenQueries]) -> WrittenQueries:
    """Return what language models wrote for any of the banks, each once."""
    about = dict.fromkeys(part.about for part in parts if part.about)
    queries = dict.fromkeys(query for part in parts for query in part.queries)
    return WrittenQueries(about="; ".join(about), queries=list(queries))


def _as_it_is(out: Path, table: pa.Table, metadata: BankMetadata) -> PromptBank:
    """Return the bank at ``out`` if it has these rows and this description."""
    folder = temporary_folder(out)
    try:
        there, wanted = PromptBank.open(out), write_bank(folder / "bank.parquet", table, metadata)
        if there.content_hash == wanted.content_hash and there.metadata == wanted.metadata:
            return there
    except UserError:
        pass  # no bank, or a damaged one: not ours to replace
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    raise UserError(f"{out} exists.", "Choose another name, or remove it first.")


def summary(merged: PromptBank, paths: Sequence[str | Path]) -> dict[str, Any]:
    """Return what a merge made of its banks, for people and for ``--json``."""
    entries = merged.footer.classes
    return {
        "bank": str(merged.path),
        "banks": [str(path) for path in paths],
        "datasets": [part.dataset for part in merged.metadata.datasets],
        "classes": sum(len(part.class_names) for part in merged.metadata.datasets),
        "prompts": sum(entry.rows for entry in entries),
        "kept": sum(entry.kept for entry in entries),
    }


def _check_same_encoder(first: PromptBank, bank: PromptBank) -> None:
    one, other = first.metadata, bank.metadata
    if (one.encoder_fingerprint, one.dim) != (other.encoder_fingerprint, other.dim):
        raise UserError(
            f"{bank.path} was encoded by {other.encoder_fingerprint}, {first.path} by "
            f"{one.encoder_fingerprint}: their embeddings cannot be compared.",
            "Make both with one encoder.",
        )


def _distinct(table: pa.Table) -> pa.Table:
    """Drop rows whose prompt id came before, after checking that they say the same."""
    numbered = table.select(["prompt_id", "text"]).append_column(
        "row", pa.array(range(len(table)), pa.int64())
    )
    grouped = numbered.group_by("prompt_id").aggregate([("row", "min"), ("text", "count_distinct")])
    if len(grouped) == len(table):
        return table
    clash = grouped.filter(pc.greater(grouped.column("text_count_distinct"), 1))
    if len(clash):
        raise UserError(
            f"The prompt id {clash.column('prompt_id')[0].as_py()!r} has different texts in the "
            f"banks ({len(clash)} such ids).",
            "Compare the banks with: aape bank diff.",
        )
    return table.take(grouped.column("row_min").sort())

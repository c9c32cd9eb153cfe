"""Several banks into one: one encoder, the same classes for a shared data set, no prompt twice."""

# pyarrow.compute makes its functions at import, so they are unknown to the type checker:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import UserError
from ..leftovers import temporary_folder
from .bank import PromptBank
from .folder import write_folder
from .schema import BankDataset, WrittenQueries, embedding_array
from .write import write_bank


def merge_banks(paths: Sequence[str | Path], out: str | Path, parts: int = 0) -> PromptBank:
    """Write a bank with the rows of all banks. A prompt id that occurs again is taken once.

    Class ids stay as they are within their data set. With ``parts`` the bank is a folder of so many
    at most, each with whole classes, and no more than the rows of one are in memory.

    If ``out`` holds these rows already, it is left as it is: a merge that was killed before it
    built its index can be asked for again.

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

    def write(path: Path) -> PromptBank:
        if parts:
            return write_folder(path, _tables(banks, parts), metadata)
        table = _distinct(pa.concat_tables([bank.table for bank in banks]))
        return write_bank(path, table, metadata)

    empty = parts and out.is_dir() and not any(out.iterdir())
    return write(out) if empty or not out.exists() else _as_it_is(out, write)


def _tables(banks: Sequence[PromptBank], parts: int) -> Iterator[pa.Table]:
    """Yield the rows of all banks, some classes at a time, each table of about as many rows."""
    counts: dict[tuple[str, int], int] = {}
    for bank in banks:
        for entry in bank.footer.classes:
            place = (entry.dataset, entry.class_id)
            counts[place] = counts.get(place, 0) + entry.rows
    wanted = math.ceil(sum(counts.values()) / parts)
    run: list[tuple[str, int]] = []
    rows = 0
    for place in sorted(counts):
        run.append(place)
        rows += counts[place]
        if rows >= wanted:
            yield _distinct(pa.concat_tables([_rows_between(bank, run) for bank in banks]))
            run, rows = [], 0
    if run:
        yield _distinct(pa.concat_tables([_rows_between(bank, run) for bank in banks]))


def _rows_between(bank: PromptBank, run: Sequence[tuple[str, int]]) -> pa.Table:
    """Return the rows of a run of classes, which lie side by side in any bank."""
    lower, upper = run[0], run[-1]
    here = [e for e in bank.footer.classes if lower <= (e.dataset, e.class_id) <= upper]
    if not here:
        return bank.schema.empty_table()
    start, stop = here[0].start, here[-1].start + here[-1].rows
    vectors = embedding_array(bank.vectors.take(np.arange(start, stop)))
    facts = bank.rows(start, stop).combine_chunks()
    return facts.append_column(bank.schema.field("embedding"), vectors)


def _own_queries(parts: Sequence[WrittenQueries]) -> WrittenQueries:
    """Return what language models wrote for any of the banks, each once."""
    about = dict.fromkeys(part.about for part in parts if part.about)
    queries = dict.fromkeys(query for part in parts for query in part.queries)
    return WrittenQueries(about="; ".join(about), queries=list(queries))


def _as_it_is(out: Path, write: Callable[[Path], PromptBank]) -> PromptBank:
    """Return the bank at ``out`` if it has the rows that would be written, and this description."""
    folder = temporary_folder(out)
    try:
        there, wanted = PromptBank.open(out), write(folder / "bank.parquet")
        same = there.content_hash == wanted.content_hash and there.metadata == wanted.metadata
        if same and len(there.files) == len(wanted.files):
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

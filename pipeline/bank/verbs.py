"""The verbs of ``aape bank`` as functions. ``bank`` is a path, an open bank, or nothing: the only
bank in the current folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..one_or_many import one_or_many, several
from .which import bank_path, named_bank

if TYPE_CHECKING:
    from .bank import PromptBank
    from .diff import BankDiff
    from .index import IndexReport
    from .search import SearchHit
    from .statistics import BankStatistics
    from .verify import VerifyReport

    Bank = str | Path | PromptBank

SHOWN = ("dataset", "class_id", "class_name", "query_id", "verdict", "text")


def bank_info(bank: Bank = "") -> dict[str, Any]:
    """Return what a bank holds and what made it, without reading its rows.

    Raises:
        UserError: there is no such bank, or none or several in the current folder. So do all below.
    """
    from . import statistics

    return statistics.bank_info(named_bank(bank))


def bank_stats(bank: Bank = "") -> BankStatistics:
    """Return prompts kept and dropped, with the reason, by class and by query."""
    from . import statistics

    return statistics.bank_statistics(named_bank(bank))


def bank_show(class_name: str, bank: Bank = "", dataset: str = "") -> list[dict[str, Any]]:
    """Return the prompts of a class, named by its id or its name, with their verdicts.

    Args:
        dataset: one data set of a bank of several.

    Raises:
        UserError: the bank has no such class.
    """
    opened = named_bank(bank)
    return [
        row
        for entry in opened.find_class(class_name, dataset)
        for row in opened.rows(entry.start, entry.start + entry.rows, SHOWN).to_pylist()
    ]


def bank_search(
    text: str,
    bank: Bank = "",
    number: int = 10,
    of_class: str = "",
    dataset: str = "",
    exact: bool = False,
    checkpoint: str = "",
    device: str = "auto",
) -> list[SearchHit]:
    """Return the prompts nearest in meaning to a text, best first, by the bank's own encoder.

    Args:
        number: how many. of_class: only this class, by id or name. dataset: only this data set.
        exact: look at every prompt, not the index.
        checkpoint: local weights of the encoder. device: where it runs.

    Raises:
        UserError: the encoder cannot be had, or the bank was made by another.
    """
    from ..encoders import load_encoder

    opened = named_bank(bank)
    only = opened.find_class(of_class, dataset) if of_class else [None]
    encoder = load_encoder(opened.metadata.encoder_id, checkpoint=checkpoint, device=device)
    opened.check_encoder(encoder)
    query = encoder.encode_text([text])[0]
    found = [
        hit
        for entry in only
        for hit in (
            opened.search(query, number, entry.class_id, entry.dataset)
            if entry
            else opened.search(query, number, exact=exact)
        )
        if not dataset or hit.dataset == dataset
    ]
    return sorted(found, key=lambda hit: -hit.cosine)[:number]


def bank_sql(query: str, bank: Bank = "") -> list[dict[str, Any]]:
    """Return the rows of one SELECT (DuckDB) over the views ``bank`` and ``classes``.

    Raises:
        UserError: the query is wrong, or wants to write.
    """
    from .sql import rows_of

    return rows_of(named_bank(bank).sql(query))


def bank_diff(before: Bank, after: Bank) -> BankDiff:
    """Return prompts added, removed and changed between two banks."""
    from . import diff

    return diff.diff_banks(named_bank(before), named_bank(after))


@one_or_many("banks")
def bank_merge(
    banks: str | Path | Sequence[str | Path], out: str | Path, parts: int = 0
) -> dict[str, Any]:
    """Join banks into one, with its index; a prompt that occurs in several is taken once.

    Args:
        parts: write a folder of so many parts, of which one at a time is in memory; 0: one file.

    Returns:
        The ``bank``, and how many prompts of which data sets are in it.

    Raises:
        UserError: fewer than two, or of different encoders.
    """
    from . import index, merge

    merged = merge.merge_banks(several(banks), out, parts)
    if any(entry.kept for entry in merged.footer.classes):
        index.build_index(merged)
    return merge.summary(merged, several(banks))


def bank_export(out: str | Path, bank: Bank = "", kind: str = "cupl-json") -> list[str]:
    """Write a bank in the format of other tools: ``cupl-json``, ``csv``, ``parquet`` or ``hf``.

    Returns:
        What the format cannot say.
    """
    from . import export

    return export.export_bank(named_bank(bank), kind, out)


def bank_verify(bank: str | Path = "") -> VerifyReport:
    """Check every byte of a bank and its index."""
    from . import verify

    return verify.verify_bank(bank_path(bank))


def bank_reindex(bank: Bank = "", kind: str = "auto") -> IndexReport:
    """Build the FAISS index again and measure its recall against exact search.

    Args:
        kind: ``auto`` (flat below 200,000 prompts, ivf below a million, else ivfpq), ``flat``,
            ``ivf``, ``ivfpq`` or ``hnsw``.
    """
    from . import index

    return index.build_index(named_bank(bank), kind)


def bank_card(bank: Bank = "", out: str | Path | None = None) -> str:
    """Return where a bank's prompts come from, as Markdown; with ``out`` also write it there."""
    from ..files import write_text
    from . import card

    text = card.bank_card(named_bank(bank))
    if out is not None:
        write_text(out, text)
    return text

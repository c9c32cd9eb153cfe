"""Counts over a bank: what was kept, what was dropped and why, by class."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ..config import Section
from .bank import PromptBank
from .schema import CONTRAST_PREFIX, KEPT, NAME_QUERY


class ClassStatistics(Section):
    """The prompts of a class: how many, how many kept, and how many of each verdict."""

    dataset: str
    class_id: int
    class_name: str
    rows: int
    kept: int
    verdicts: dict[str, int]


class BankStatistics(Section):
    """Counts over all prompts. Token counts are those of the encoder's tokenizer, kept only.

    ``kinds``: what the prompts were asked as, kept or not: descriptions, contrasts to another
    class, other names. ``about`` and ``own_queries``: where the language model wrote the queries.
    """

    rows: int
    kept: int
    verdicts: dict[str, int]
    queries: dict[str, int]
    kinds: dict[str, int]
    about: str
    own_queries: list[str]
    models: dict[str, int]
    tokens_mean: float
    tokens_max: int
    kept_least: int
    kept_median: float
    kept_most: int
    classes_without_kept: int
    classes: list[ClassStatistics]


def bank_statistics(bank: PromptBank) -> BankStatistics:
    """Count verdicts, queries and models over the bank and by class."""
    columns = ["dataset", "class_id", "verdict", "query_id", "llm", "n_tokens_clip"]
    rows = bank.rows(0, len(bank), columns)
    by_class: dict[tuple[str, int], Counter[str]] = {}
    grouped = rows.group_by(["dataset", "class_id", "verdict"]).aggregate([([], "count_all")])
    for row in grouped.to_pylist():
        counts = by_class.setdefault((row["dataset"], row["class_id"]), Counter())
        counts[row["verdict"]] = row["count_all"]
    classes = [
        ClassStatistics(
            dataset=part.dataset,
            class_id=class_id,
            class_name=name,
            rows=sum(counts.values()),
            kept=counts[KEPT],
            verdicts=dict(counts.most_common()),
        )
        for part in bank.metadata.datasets
        for class_id, name in enumerate(part.class_names)
        for counts in [by_class.get((part.dataset, class_id), Counter())]
    ]
    verdicts = rows.column("verdict").to_pylist()
    keeps = np.array([verdict == KEPT for verdict in verdicts], bool)
    tokens = rows.column("n_tokens_clip").to_numpy()[keeps]
    kept = [entry.kept for entry in classes] or [0]
    return BankStatistics(
        rows=len(bank),
        kept=int(keeps.sum()),
        verdicts=dict(Counter(verdicts).most_common()),
        queries=dict(Counter(rows.column("query_id").to_pylist()).most_common()),
        kinds=dict(Counter(map(_kind, rows.column("query_id").to_pylist())).most_common()),
        about=bank.metadata.own_queries.about,
        own_queries=bank.metadata.own_queries.queries,
        models=dict(Counter(rows.column("llm").to_pylist()).most_common()),
        tokens_mean=float(tokens.mean()) if len(tokens) else 0.0,
        tokens_max=int(tokens.max()) if len(tokens) else 0,
        kept_least=min(kept),
        kept_median=float(np.median(kept)),
        kept_most=max(kept),
        classes_without_kept=sum(not count for count in kept),
        classes=classes,
    )


def _kind(query_id: str) -> str:
    """Return what a prompt was asked as, told by the name of its query."""
    if query_id.startswith(CONTRAST_PREFIX) and query_id[len(CONTRAST_PREFIX) :].isdecimal():
        return "contrast"
    return "other name" if query_id == NAME_QUERY else "description"


def bank_info(bank: PromptBank) -> dict[str, Any]:
    """Return what is known of a bank without reading its rows."""
    metadata = bank.metadata
    return {
        "path": str(bank.path),
        "bytes": sum(file.path.stat().st_size for file in bank.files),
        "parts": len(bank.files),
        "prompts": len(bank),
        "kept": sum(entry.kept for entry in bank.footer.classes),
        "encoder": metadata.encoder_fingerprint,
        "dim": metadata.dim,
        "preprocessing": metadata.preprocessing,
        "index": str(bank.index_path) if bank.index_path.exists() else "none",
        "schema_version": metadata.schema_version,
        "content_hash": bank.content_hash,
        "tools": metadata.tool_versions,
        "data_sets": [
            {
                "dataset": part.dataset,
                "classes": len(part.class_names),
                "manifest_hash": part.manifest_hash,
                "classes_without_kept": sum(
                    not bank.class_rows(number, part.dataset).kept
                    for number in range(len(part.class_names))
                ),
            }
            for part in metadata.datasets
        ],
    }

"""Where a run comes from, for its report: bank, adapter, training, configuration, machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...pipeline.errors import UserError
from ...pipeline.files import hash_file, read_json
from ..bank_of_run import bank_of_run

_SHOWN_CLASSES, _SHOWN_PROMPTS = 6, 3
_LARGEST = 1e12  # of a figure that can be drawn
_MOST_EPOCHS = 10_000


def adapter_facts(run: Path) -> dict[str, Any]:
    """Return the run's ``adapter_config.json``; empty where it has no adapter."""
    path = run / "adapter_config.json"
    about = read_json(path) if path.is_file() else {}
    return about if isinstance(about, dict) else {}


def provenance(run: Path, about: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a reader needs to trust or repeat the run, as name and value."""
    recipe = about.get("recipe")
    rows = [
        ("data set", about.get("dataset")),
        ("encoder", about.get("encoder")),
        ("protocol", about.get("protocol")),
        ("shots", about.get("shots")),
        ("recipe", recipe.get("name") if isinstance(recipe, dict) else None),
        ("bank", Path(str(about["bank"])).name if about.get("bank") else None),
        ("bank, SHA-256", about.get("bank_sha256")),
        ("features, SHA-256", about.get("features_sha256")),
    ]
    weights = run / "adapter.safetensors"
    if weights.is_file():
        rows.append(("adapter, SHA-256", hash_file(weights)))
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def terms(about: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the adapter's table: the weight of each term for seen and for new classes."""
    table = about.get("table")
    if not isinstance(table, dict):
        return []
    return [
        {"name": str(name), "seen": float(pair[0]), "new": float(pair[1])}
        for name, pair in table.items()
        if isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= _LARGEST  # False for NaN


def training_curves(run: Path) -> dict[str, list[tuple[float, float, float]]]:
    """Return cross-entropy by epoch, mean and deviation over seeds, of each method that logged."""
    import numpy as np

    path = run / "metrics.jsonl"
    found: dict[str, dict[int, list[float]]] = {}
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        try:
            row = json.loads(line)
            value, epoch = float(row["cross_entropy"]), int(row["epoch"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # a line that a kill cut short, or that is not ours
        if not _is_number(value) or not 0 <= epoch <= _MOST_EPOCHS:
            continue
        found.setdefault(str(row.get("method", "ours")), {}).setdefault(epoch, []).append(value)
    return {
        name: [(epoch, float(np.mean(v)), float(np.std(v))) for epoch, v in sorted(epochs.items())]
        for name, epochs in found.items()
    }


def bank_facts(run: Path, about: dict[str, Any], bank: str | Path | None = None) -> dict[str, Any]:
    """Return statistics of the run's bank and a few of its prompts, or why there are none.

    ``missing`` says why, ``rows`` are name and value, ``verdicts`` are (verdict, prompts),
    ``prompts`` are (class name, kept prompts).
    """
    if not about.get("bank"):
        return {}
    try:
        opened = bank_of_run(run, about, bank)
        from ...pipeline.bank.statistics import bank_statistics

        counts = bank_statistics(opened)
        prompts = _some_prompts(opened, str(about.get("dataset", "")))
    except UserError as error:
        return {"missing": str(error)}
    spread = f"{counts.kept_least} / {counts.kept_median:g} / {counts.kept_most}"
    rows = [
        ("prompts", f"{counts.rows:,}"),
        ("kept", f"{counts.kept:,}"),
        ("kept a class: least / median / most", spread),
        ("classes without a kept prompt", f"{counts.classes_without_kept}"),
        ("tokens of a kept prompt: mean / most", f"{counts.tokens_mean:.1f} / {counts.tokens_max}"),
        ("language model", ", ".join(counts.models) or "–"),
        ("questions asked", f"{len(counts.queries)}"),
        ("encoder", opened.metadata.encoder_fingerprint),
        ("content", opened.content_hash),
    ]
    return {"rows": rows, "verdicts": list(counts.verdicts.items()), "prompts": prompts}


def _some_prompts(bank: Any, dataset: str) -> list[tuple[str, list[str]]]:
    known = {part.dataset for part in bank.metadata.datasets}
    name = dataset if dataset in known else bank.metadata.datasets[0].dataset
    names = bank.metadata.of(name).class_names
    chosen = range(0, len(names), max(1, len(names) // _SHOWN_CLASSES))
    shown = [(names[i], bank.prompts(i, dataset=name)[:_SHOWN_PROMPTS]) for i in chosen]
    return [(title, texts) for title, texts in shown if texts][:_SHOWN_CLASSES]

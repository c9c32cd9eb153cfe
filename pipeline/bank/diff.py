"""What changed from one bank to another, by prompt id. When a prompt was made does not count."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from ..config import Section
from .bank import PromptBank
from .content import IGNORED
from .schema import COLUMNS

_SAME_VECTOR = 1e-5  # largest difference of an element: encoders round differently by machine


class ChangedPrompt(Section):
    """A prompt in both banks that is not the same in both: column -> (before, after)."""

    prompt_id: str
    class_name: str
    changes: dict[str, tuple[Any, Any]]


class BankDiff(Section):
    """The difference of two banks. ``same`` is True where rows and metadata agree."""

    same: bool
    rows_before: int
    rows_after: int
    added: list[str] = Field(default_factory=list)
    removed: list[str] = Field(default_factory=list)
    changed: list[ChangedPrompt] = Field(default_factory=list)
    metadata: dict[str, tuple[Any, Any]] = Field(default_factory=dict)


def diff_banks(before: PromptBank, after: PromptBank) -> BankDiff:
    """Compare two banks: prompts added, removed, changed, and the metadata.

    Embeddings count as equal up to 1e-5 an element.
    """
    one, other = before.metadata.model_dump(), after.metadata.model_dump()
    metadata = {name: (one[name], other[name]) for name in one if one[name] != other[name]}
    report = BankDiff(same=False, rows_before=len(before), rows_after=len(after), metadata=metadata)
    if before.content_hash == after.content_hash:
        return report.model_copy(update={"same": not metadata})
    old, new = _positions(before), _positions(after)
    changed = _changed(before, after, [key for key in old if key in new], old, new)
    added = [key for key in new if key not in old]
    removed = [key for key in old if key not in new]
    return report.model_copy(
        update={
            "same": not (metadata or added or removed or changed),
            "added": added,
            "removed": removed,
            "changed": changed,
        }
    )


def _positions(bank: PromptBank) -> dict[str, int]:
    ids = bank.rows(0, len(bank), ["prompt_id"]).column("prompt_id").to_pylist()
    return {key: row for row, key in enumerate(ids)}


def _changed(
    before: PromptBank,
    after: PromptBank,
    keys: list[str],
    old: dict[str, int],
    new: dict[str, int],
) -> list[ChangedPrompt]:
    names = [name for name in COLUMNS if name not in (IGNORED, "prompt_id")]
    changes: dict[str, dict[str, tuple[Any, Any]]] = {}
    for name in names:  # a column at a time: memory stays that of one column
        was = before.rows(0, len(before), [name]).column(name).to_pylist()
        now = after.rows(0, len(after), [name]).column(name).to_pylist()
        for key in keys:
            if was[old[key]] != now[new[key]]:
                changes.setdefault(key, {})[name] = (was[old[key]], now[new[key]])
    if before.metadata.dim == after.metadata.dim:
        for start in range(0, len(keys), 4096):
            part = keys[start : start + 4096]
            was = before.vectors.take(np.array([old[key] for key in part]))
            now = after.vectors.take(np.array([new[key] for key in part]))
            for index in np.flatnonzero(np.abs(was - now).max(axis=1) > _SAME_VECTOR):
                cosine = float(was[index] @ now[index])
                changes.setdefault(part[index], {})["embedding"] = ("", f"cosine {cosine:.4f}")
    class_names = after.rows(0, len(after), ["class_name"]).column("class_name")
    return [
        ChangedPrompt(prompt_id=key, class_name=class_names[new[key]].as_py(), changes=changes[key])
        for key in keys
        if key in changes
    ]

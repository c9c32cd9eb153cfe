"""What a frozen language model wrote for a trained row, kept so that no text is written twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ...pipeline.files import hash_value
from ...pipeline.progress import bar, step
from ...pipeline.record_log import RecordLog
from .decode import answer
from .settings import DecodeConfig

if TYPE_CHECKING:
    from ..results import MethodResult
    from .lm import FrozenLM

_AT_ONCE = 128  # what a kill may cost
_CUT = "cut at max_tokens"


class Written(NamedTuple):
    """A text, whether it ended by itself, and the place of the answer ranked first (or -1)."""

    text: str
    ended: bool
    choice: int


def write_texts(
    lm: FrozenLM,
    ids: Sequence[str],
    context: Callable[[int], Tensor],
    config: DecodeConfig,
    log: Path | None,
    description: str,
    vocabulary: Sequence[str] = (),
) -> list[Written]:
    """Write a text for every id; what is in ``log`` is not asked for again.

    Args:
        context: gives the embeddings (l, w) of the id at a position, when they are needed.
        log: beginning of the name of the folder that keeps the texts; the settings end it.
        vocabulary: closed list whose likeliest entry is found too.
    """
    kept = _open(log, config, vocabulary) if log else None
    done = {key: kept[key] for key in ids if key in kept} if kept else {}
    missing = [index for index, key in enumerate(ids) if key not in done]
    if done:
        step(f"Reusing {len(ids) - len(missing)} of {len(ids)} generated texts.")
    with bar() as progress:
        progress.disable = not missing
        task = progress.add_task(description, total=len(missing))
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            texts = answer(lm, [context(index) for index in part], config, vocabulary)
            fresh = {ids[index]: Written(*text) for index, text in zip(part, texts)}
            if kept is not None:
                kept.add(fresh)
            done |= fresh
            progress.advance(task, len(part))
    return [done[key] for key in ids]


def count_cut(method: MethodResult, ended: Sequence[bool]) -> None:
    """Note in a row's details how many texts of a seed did not end by themselves."""
    method.details.setdefault(_CUT, []).append(sum(not end for end in ended))


def cut_note(methods: Sequence[MethodResult], texts: int, tokens: int) -> list[str]:
    """Return the note on rows whose texts were cut at ``tokens``, of ``texts`` a seed."""
    counts = [(m.name, sum(m.details.get(_CUT, [])), texts * len(m.seeds)) for m in methods]
    found = [f"{name} {cut:,} of {whole:,}" for name, cut, whole in counts if cut]
    return [f"texts cut at {tokens} tokens: {', '.join(found)}"] if found else []


def _open(log: Path, config: DecodeConfig, vocabulary: Sequence[str]) -> RecordLog[Written]:
    """Open the log of one choice of settings, with what the first versions kept in one file."""
    name = f"{log.name}-{hash_value([config.model_dump(mode='json'), list(vocabulary)])[:8]}"
    kept = RecordLog(log.with_name(name), _to_json, _from_json)
    old = log.with_name(f"{name}.jsonl")
    if old.is_file():
        kept.add(_read_old(old))
        old.unlink()
    kept.merge()
    return kept


def _to_json(key: str, row: Written) -> dict[str, Any]:
    return {"id": key, **row._asdict()}


def _from_json(row: Any) -> tuple[str, Written] | None:
    try:
        key, written = row["id"], Written(row["text"], row["ended"], row["choice"])
    except (TypeError, KeyError):
        return None
    types = [type(part) for part in (key, *written)]
    return (key, written) if types == [str, str, bool, int] else None


def _read_old(path: Path) -> dict[str, Written]:
    """Read lines without a checksum; one that a kill cut short is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = _from_json(json.loads(line))
        except (ValueError, RecursionError):
            continue
        if row is not None:
            found[row[0]] = row[1]
    return found

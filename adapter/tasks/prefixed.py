"""What captioning and question answering share: prefix inputs, trained rows, logged generation."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...pipeline.features import image_features
from ...pipeline.files import hash_value, read_json, write_json
from ...pipeline.progress import bar, step
from ..captions import CaptionAdapter
from ..decode import DecodeConfig, answer
from ..prefix_lm import (
    NAMES,
    Example,
    FrozenLM,
    Kind,
    Prefix,
    PrefixConfig,
    PrefixInputs,
    pool_tokens,
    train_prefix,
)

if TYPE_CHECKING:
    from ...pipeline.encoders.base import Encoder

_IMAGES_AT_ONCE = 2048  # their token maps are held in memory until they are pooled
_GENERATED_AT_ONCE = 128  # what a kill may cost


def image_inputs(encoder: Encoder, paths: Sequence[Path], grid: int) -> tuple[Tensor, np.ndarray]:
    """Return pooled image tokens (n, grid², e) and image features (n, d), both from the cache."""
    tokens, x = [], []
    for start in range(0, len(paths), _IMAGES_AT_ONCE):
        found = image_features(encoder, paths[start : start + _IMAGES_AT_ONCE], tokens=True)
        assert found.tokens is not None
        tokens.append(pool_tokens(found.tokens, grid))
        x.append(found.x)
    return torch.cat(tokens), np.concatenate(x)


def with_h(tokens: Tensor, x: np.ndarray, adapter: CaptionAdapter) -> PrefixInputs:
    """Add the AAPE of an adapter to pooled tokens."""
    return PrefixInputs(tokens, torch.from_numpy(adapter.h(x)))


@dataclass
class TrainedRow:
    """A trained prefix of one kind and seed, and where its products go."""

    kind: Kind
    prefix: Prefix
    losses: list[float]
    seconds: float
    folder: Path | None
    parameters: int


def trained_row(
    lm: FrozenLM,
    kind: Kind,
    inputs: PrefixInputs,
    examples: Sequence[Example],
    config: PrefixConfig,
    *,
    seed: int,
    folder: Path | None,
    key: object,
    goal_examples: Sequence[Example] = (),
) -> TrainedRow:
    """Train the prefix of one row, or reuse it, or go on where a killed run stopped.

    All rows of a seed see the same batches for the same number of steps.

    Args:
        folder: where the row's files go; its name gets the hash of ``key`` and of all settings.
        goal_examples: texts that the warm start aims at; the examples if there are none.
    """
    torch.manual_seed(seed)
    shape = (inputs.tokens.shape[1], inputs.tokens.shape[2])
    prefix = Prefix(kind, shape, inputs.h.shape[1], lm.width, lm.scale)
    place = checkpoint = None
    if folder is not None:
        training = PrefixConfig.model_validate(
            {name: getattr(config, name) for name in PrefixConfig.model_fields}
        )
        whole = [key, kind, seed, lm.name, training.model_dump(mode="json")]
        place = folder / f"{kind}-seed{seed}-{hash_value(whole)[:12]}"
        checkpoint = place / "prefix.safetensors"
    began = time.perf_counter()
    with bar() as progress:
        task = progress.add_task(f"Training: {NAMES[kind]} (seed {seed})", total=config.steps)
        losses = train_prefix(
            lm,
            prefix,
            inputs,
            examples,
            config,
            seed=seed,
            checkpoint=checkpoint,
            on_step=lambda number, _: progress.update(task, completed=number + 1),
            goal_examples=goal_examples,
        )
        progress.update(task, completed=config.steps)
    seconds = time.perf_counter() - began
    if place is not None:
        timing = place / "training.json"
        if timing.exists():
            step(f"Reusing the trained prefix: {NAMES[kind]}, seed {seed}.")
            seconds = read_json(timing)["seconds"]
        else:
            write_json(timing, {"seconds": seconds, "losses": losses, "steps": config.steps})
    count = sum(p.numel() for p in prefix.parameters())
    return TrainedRow(kind, prefix.eval(), losses, seconds, place, count)


def logged_generate(
    lm: FrozenLM,
    ids: Sequence[str],
    context: Callable[[int], Tensor],
    config: DecodeConfig,
    log: Path | None,
    description: str,
) -> list[tuple[str, bool]]:
    """Generate a text for every id; see :func:`logged_answers`."""
    rows = logged_answers(lm, ids, context, config, (), log, description)
    return [(text, ended) for text, ended, _ in rows]


def logged_answers(
    lm: FrozenLM,
    ids: Sequence[str],
    context: Callable[[int], Tensor],
    config: DecodeConfig,
    vocabulary: Sequence[str],
    log: Path | None,
    description: str,
) -> list[tuple[str, bool, int]]:
    """Answer every id; finished answers are appended to ``log`` and never asked for again.

    Args:
        context: gives the embeddings (l, w) of the id at a position, when they are needed.
        vocabulary: closed list whose likeliest entry is found too (its position; -1 without).
        log: JSON lines; a line that a kill cut short is ignored.
    """
    name = hash_value([config.model_dump(mode="json"), list(vocabulary)])[:8]
    path = log.with_name(f"{log.name}-{name}.jsonl") if log else None
    done = _read_log(path) if path else {}
    missing = [index for index, key in enumerate(ids) if key not in done]
    if path and len(missing) < len(ids):
        step(f"Reusing {len(ids) - len(missing)} of {len(ids)} generated texts.")
    with bar() as progress:
        progress.disable = not missing
        task = progress.add_task(description, total=len(missing))
        for start in range(0, len(missing), _GENERATED_AT_ONCE):
            part = missing[start : start + _GENERATED_AT_ONCE]
            texts = answer(lm, [context(index) for index in part], config, vocabulary)
            fresh = {ids[index]: text for index, text in zip(part, texts)}
            if path:
                _append(path, fresh)
            done |= fresh
            progress.advance(task, len(part))
    return [done[key] for key in ids]


def _read_log(path: Path) -> dict[str, tuple[str, bool, int]]:
    found: dict[str, tuple[str, bool, int]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n"):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            found[row["id"]] = (row["text"], row["ended"], row["choice"])
    return found


def _append(path: Path, rows: dict[str, tuple[str, bool, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"id": k, "text": t, "ended": e, "choice": c}, ensure_ascii=False)
        for k, (t, e, c) in rows.items()
    ]
    with path.open("a", encoding="utf-8") as stream:
        # a leading newline ends a line that a kill may have cut short
        stream.write("\n" + "\n".join(lines) + "\n")
        stream.flush()
        os.fsync(stream.fileno())

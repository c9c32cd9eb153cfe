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

from ...pipeline.embed.images import cannot_be_read, check_there, image_features, say_left_out
from ...pipeline.errors import UserError
from ...pipeline.files import hash_value, read_json, write_json
from ...pipeline.progress import bar, step
from .data import some, training_part
from .decode import DecodeConfig, answer
from .lm import (
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
from .train import CaptionAdapter

if TYPE_CHECKING:
    from ...pipeline.datasets import Dataset
    from ...pipeline.encoders.base import Encoder
    from ...pipeline.pictures import Unreadable
    from ..results import MethodResult
    from ..run import RunFolder

_VERSION = 2  # of the prefix; another one reuses no older training
_IMAGES_AT_ONCE = 2048  # their token maps are held in memory until they are pooled
_GENERATED_AT_ONCE = 128  # what a kill may cost
_CUT = "cut at max_tokens"


def image_inputs(
    encoder: Encoder, paths: Sequence[Path], grid: int, what: str = "training", strict: bool = False
) -> tuple[Tensor, np.ndarray, list[int]]:
    """Return tokens and features of the n images that can be read, and which of ``paths`` they are.

    Both are from the cache: pooled tokens (n, grid², e), features (n, d). What cannot be read is
    counted, unless ``strict``; ``what`` the images are: "training".

    Raises:
        UserError: none can be read, one does not exist, or with ``strict`` one cannot be read.
    """
    tokens, x, kept = [], [], []
    left_out: list[Unreadable] = []
    for start in range(0, len(paths), _IMAGES_AT_ONCE):
        part = paths[start : start + _IMAGES_AT_ONCE]
        found = image_features(encoder, part, tokens=True, strict=strict)
        assert found.tokens is not None
        if len(found.kept):
            tokens.append(pool_tokens(found.tokens, grid))
        x.append(found.x)
        kept += [start + int(i) for i in found.kept]
        left_out += found.unreadable
    check_there(left_out, len(paths))
    if not kept:
        raise cannot_be_read(left_out, len(paths))
    say_left_out(left_out, len(paths), f"{what} images")
    return torch.cat(tokens), np.concatenate(x), kept


def with_h(tokens: Tensor, x: np.ndarray, adapter: CaptionAdapter) -> PrefixInputs:
    """Add the AAPE of an adapter to pooled tokens."""
    return PrefixInputs(tokens, torch.from_numpy(adapter.h(x)), torch.from_numpy(x))


@dataclass
class CaptionTexts:
    """What a prefix learns of captions: images as tokens (n, t, e) and x (n, d), texts, a key."""

    tokens: Tensor
    x: np.ndarray
    examples: list[Example]
    key: list[str]


def caption_texts(
    dataset: Dataset, encoder: Encoder, grid: int, limit: int, strict: bool = False
) -> CaptionTexts:
    """Return the captioned training images of a data set, ``limit`` of them (0 is all).

    Those that cannot be read are left out, unless ``strict``.
    Images that are held out for validation, where there is no such split, are left out here as in
    the training of ``h``: what is chosen on them was not trained on them.

    Raises:
        UserError: it has none.
    """
    train = some(training_part(dataset), limit)
    train = [image for image in train if any(text.strip() for text in image.captions)]
    if not train:
        raise UserError(f"{dataset.manifest.name} has no captioned images to train on.")
    paths = [image.path for image in train]
    tokens, x, kept = image_inputs(encoder, paths, grid, "training", strict)
    train = [train[i] for i in kept]
    # captions follow the prefix without a prompt, so their first word gets its leading space
    examples = [
        Example(index, "", " " + " ".join(text.split()))
        for index, image in enumerate(train)
        for text in image.captions
        if text.strip()
    ]
    texts = hash_value([[image.image_id, *image.captions] for image in train])
    return CaptionTexts(tokens, x, examples, [encoder.fingerprint, texts])


def caption_row(
    lm: FrozenLM,
    kind: Kind,
    texts: CaptionTexts,
    adapter: CaptionAdapter,
    config: PrefixConfig,
    run: RunFolder | None,
) -> TrainedRow:
    """Train a prefix on captions, or reuse it: captioning and VQA of a run share it."""
    return trained_row(
        lm,
        kind,
        with_h(texts.tokens, texts.x, adapter),
        texts.examples,
        config,
        seed=adapter.config.seed,
        folder=run.path / "captioning" if run else None,
        key=[*texts.key, adapter.hash],
    )


@dataclass
class TrainedRow:
    """A trained prefix of one kind and seed, and where its products go.

    Attributes:
        seconds: of training, those of the row that it started from included.
        name: with a hash of all that decided the weights.
    """

    kind: Kind
    prefix: Prefix
    losses: list[float]
    seconds: float
    folder: Path | None
    parameters: int
    name: str


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
    start: TrainedRow | None = None,
) -> TrainedRow:
    """Train the prefix of one row, or reuse it, or go on where a killed run stopped.

    All rows of a seed see the same batches for the same number of steps.

    Args:
        folder: where the row's files go; its name gets the hash of ``key`` and of all settings.
        start: a trained row of the same kind to go on from, instead of the warm start.
    """
    torch.manual_seed(seed)
    shape = (inputs.tokens.shape[1], inputs.tokens.shape[2])
    slots = config.aape_tokens
    prefix = Prefix(kind, shape, inputs.h.shape[1], lm.width, lm.scale, slots)
    training = PrefixConfig.model_validate(
        {name: getattr(config, name) for name in PrefixConfig.model_fields}
    )
    settings = training.model_dump(mode="json", exclude={"aape_tokens"} if slots == 1 else None)
    whole = [_VERSION, key, kind, seed, lm.name, settings]
    decided = hash_value([*whole, start.name] if start else whole)[:12]
    name = f"{kind}-seed{seed}-{decided}"
    place = folder / name if folder else None
    checkpoint = place / "prefix.safetensors" if place else None
    timing = place / "training.json" if place else None
    reused = timing is not None and timing.exists()
    began = time.perf_counter()
    with bar() as progress:
        progress.disable = reused
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
            start=start.prefix if start else None,
        )
        progress.update(task, completed=config.steps)
    seconds = time.perf_counter() - began
    if timing is not None:
        if reused:
            step(f"Reusing the trained prefix: {NAMES[kind]}, seed {seed}.")
            seconds = read_json(timing)["seconds"]
        else:
            write_json(timing, {"seconds": seconds, "losses": losses, "steps": config.steps})
    count = sum(p.numel() for p in prefix.parameters())
    if start:
        seconds += start.seconds
    return TrainedRow(kind, prefix.eval(), losses, seconds, place, count, name)


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


def count_cut(method: MethodResult, ended: Sequence[bool]) -> None:
    """Note in a row's details how many texts of a seed did not end by themselves."""
    method.details.setdefault(_CUT, []).append(sum(not end for end in ended))


def cut_note(methods: Sequence[MethodResult], texts: int, tokens: int) -> list[str]:
    """Return the note on rows whose texts were cut at ``tokens``, of ``texts`` a seed."""
    counts = [(m.name, sum(m.details.get(_CUT, [])), texts * len(m.seeds)) for m in methods]
    found = [f"{name} {cut:,} of {whole:,}" for name, cut, whole in counts if cut]
    return [f"texts cut at {tokens} tokens: {', '.join(found)}"] if found else []


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

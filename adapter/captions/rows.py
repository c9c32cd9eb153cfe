"""Rows of captioning and question answering: what a prefix learns from, and prefixes as trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...pipeline.embed.images import image_features
from ...pipeline.embed.left_out import cannot_be_read, check_there, say_left_out
from ...pipeline.errors import UserError
from ...pipeline.files import hash_value
from ...pipeline.progress import bar, step
from ...pipeline.store import finished_record, write_record
from .data import some, training_part
from .lm import FrozenLM
from .prefix import NAMES, Prefix, PrefixInputs, pool_tokens
from .prefix_training import Example, train_prefix
from .settings import Kind, PrefixConfig
from .train import CaptionAdapter

if TYPE_CHECKING:
    from ...pipeline.datasets import Dataset
    from ...pipeline.encoders.base import Encoder
    from ...pipeline.pictures import Unreadable
    from ..run import RunFolder

_VERSION = 2  # of the prefix; another one reuses no older training
_IMAGES_AT_ONCE = 2048  # their token maps are held in memory until they are pooled


def group_of(kind: Kind) -> str:
    """Return the group of a kind's row in a table."""
    if kind in ("aape", "both"):
        return "ours"
    return "control" if kind in ("none", "x") else "baseline"


def note_of(kind: Kind) -> str:
    """Return what a table says beside a kind's row."""
    return "a tuned prefix of the same length that never sees the image" if kind == "none" else ""


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


def text_row(
    lm: FrozenLM,
    kind: Kind,
    texts: CaptionTexts,
    adapter: CaptionAdapter,
    config: PrefixConfig,
    run: RunFolder | None,
    task: str = "captioning",
    start: TrainedRow | None = None,
) -> TrainedRow:
    """Train a prefix on texts of images, or reuse it: captioning and VQA of a run share those.

    Args:
        task: its folder in the run; ``vqa`` where the texts are questions and answers.
        start: what it learned first.
    """
    return trained_row(
        lm,
        kind,
        with_h(texts.tokens, texts.x, adapter),
        texts.examples,
        config,
        seed=adapter.config.seed,
        folder=run.path / task if run else None,
        key=[*texts.key, adapter.hash],
        start=start,
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
    known = finished_record(timing) if timing is not None else None
    reused = known is not None
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
        if known is not None:
            step(f"Reusing the trained prefix: {NAMES[kind]}, seed {seed}.")
            seconds = known["seconds"]
        else:
            write_record(timing, {"seconds": seconds, "losses": losses, "steps": config.steps})
    count = sum(p.numel() for p in prefix.parameters())
    if start:
        seconds += start.seconds
    return TrainedRow(kind, prefix.eval(), losses, seconds, place, count, name)

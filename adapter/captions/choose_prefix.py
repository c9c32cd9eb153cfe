"""Which trained prefix describes new photos: validation chooses among the rows, the run keeps it.

Every row of a table (image tokens, AAPE, both) is judged by its loss on the same validation texts,
which no prefix was trained on. The choice lies beside the rows, so that ``aape caption`` and
``aape ask`` need the run alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field

from ...pipeline.config import Section
from ...pipeline.errors import UserError
from ...pipeline.files import hash_value
from ...pipeline.paths import PlainName
from ...pipeline.store import finished_record, read_record, write_record
from ..method.checkpoint import read_module
from .data import some, training_and_validation
from .decode import length_sorted
from .lm import FrozenLM
from .prefix import NAMES, Prefix, PrefixInputs
from .prefix_training import Example, Tokenised
from .rows import CaptionTexts, TrainedRow, image_inputs, with_h
from .settings import Kind, PrefixConfig
from .train import CaptionAdapter

if TYPE_CHECKING:
    from ...pipeline.datasets import Dataset
    from ...pipeline.encoders.base import Encoder

FILE = "chosen.json"
PHOTO_ROWS: tuple[Kind, ...] = ("image", "aape", "both")  # what is trained to caption photos
_CHOICES: tuple[Kind, ...] = (*PHOTO_ROWS, "x")  # what may be chosen: all that see the image
_IMAGES = 128  # validation images at most: the rows are compared on the same texts


class RowLoss(Section):
    """The validation loss of one row."""

    kind: Kind
    seed: int
    loss: float = Field(description="mean cross-entropy of a token, in nats")


class ChosenPrefix(Section):
    """The row that a run uses on new photos, and all that is needed to open it."""

    task: Literal["captioning", "vqa"]
    row: PlainName = Field(description="folder of the row, beside this file")
    kind: Kind
    seed: int
    grid: int = Field(ge=1, le=64)
    aape_tokens: int = Field(ge=1, le=1024)
    language_model: str
    encoder: str = Field(description="fingerprint")
    generator: str = Field(description="hash of the weights of h")
    judged_on: str = Field(description="validation texts, or why there were none")
    losses: list[RowLoss] = Field(default_factory=list)

    def sentence(self) -> str:
        """Say which prefix is used, and why."""
        name = f"Prefix: {NAMES[self.kind]}, seed {self.seed}"
        if not self.losses:
            return f"{name} ({self.judged_on}; by rule)."
        best: dict[Kind, float] = {}
        for row in self.losses:
            best[row.kind] = min(row.loss, best.get(row.kind, np.inf))
        others = [f"{NAMES[kind]} {loss:.3f}" for kind, loss in best.items() if kind != self.kind]
        beside = f"; {', '.join(others)}" if others else ""
        able = [row for row in self.losses if row.kind in _CHOICES]
        why = "as validation chose" if len(able) > 1 else "the only one trained"
        return f"{name}, {why}: loss {best[self.kind]:.3f} on {self.judged_on}{beside}."


class PrefixChoice:
    """Judges rows as they are trained, and keeps the best.

    Args:
        texts: validation images and texts; without them there is a rule: both, else the first row.
        what: what the texts are, for the record.
        folder: where the rows are; without it nothing is kept.
    """

    def __init__(
        self,
        task: Literal["captioning", "vqa"],
        lm: FrozenLM,
        encoder: Encoder,
        config: PrefixConfig,
        texts: CaptionTexts | None,
        what: str,
        folder: Path | None,
    ) -> None:
        self.task: Literal["captioning", "vqa"] = task
        self.lm, self.encoder, self.config = lm, encoder, config
        self.texts, self.what, self.folder = texts, what, folder
        self.rows: list[tuple[TrainedRow, CaptionAdapter, float | None]] = []

    def judge(self, row: TrainedRow, adapter: CaptionAdapter) -> float | None:
        """Return the validation loss of a row; it takes part in the choice. None without texts."""
        loss = None
        if self.texts is not None:
            inputs = with_h(self.texts.tokens, self.texts.x, adapter)
            loss = kept_loss(self.lm, row, inputs, self.texts)
        self.rows.append((row, adapter, loss))
        return loss

    def best(self) -> ChosenPrefix | None:
        """Return the row with the least loss that sees the image; None if there is no such row."""
        able = [entry for entry in self.rows if entry[0].kind in _CHOICES]
        if not able:
            return None
        if self.texts is None:
            row, adapter, _ = min(able, key=lambda entry: entry[0].kind != "both")
        else:
            row, adapter, _ = min(able, key=lambda entry: entry[2] or 0.0)
        return ChosenPrefix(
            task=self.task,
            row=row.name,
            kind=row.kind,
            seed=adapter.config.seed,
            grid=self.config.grid,
            aape_tokens=self.config.aape_tokens,
            language_model=self.lm.name,
            encoder=self.encoder.fingerprint,
            generator=adapter.hash,
            judged_on=self.what,
            losses=[
                RowLoss(kind=row.kind, seed=adapter.config.seed, loss=round(loss, 6))
                for row, adapter, loss in self.rows
                if loss is not None
            ],
        )

    def keep(self) -> ChosenPrefix | None:
        """Record the choice beside the rows."""
        found = self.best()
        if found is not None and self.folder is not None:
            write_record(self.folder / FILE, found.model_dump(mode="json"))
        return found


def validation_captions(
    dataset: Dataset, encoder: Encoder, grid: int, limit: int = 0
) -> CaptionTexts | None:
    """Return validation images with one caption each, 128 at most; None if there are none.

    Args:
        limit: fewer images; 0 is as many as there may be.
    """
    try:
        _, images = training_and_validation(dataset)
    except UserError:
        return None
    images = [image for image in images if any(text.strip() for text in image.captions)]
    images = some(images, min(limit or _IMAGES, _IMAGES))
    if not images:
        return None
    paths = [image.path for image in images]
    tokens, x, kept = image_inputs(encoder, paths, grid, "validation")
    images = [images[i] for i in kept]
    examples = []
    for number, image in enumerate(images):
        captions = [text for text in image.captions if text.strip()]
        text = captions[number % len(captions)]
        examples.append(Example(number, "", " " + " ".join(text.split())))
    return CaptionTexts(tokens, x, examples, [encoder.fingerprint])


def validation_loss(
    lm: FrozenLM, prefix: Prefix, inputs: PrefixInputs, examples: Sequence[Example], size: int = 16
) -> float:
    """Return the mean cross-entropy of a target token over all examples, in nats."""
    texts = Tokenised.of(lm, examples)
    total = 0.0
    for rows in length_sorted(texts.lengths.tolist(), size):
        with torch.no_grad():
            loss = texts.loss(lm, prefix, inputs, rows)
        total += float(loss) * sum(len(texts.targets[row]) for row in rows)
    return total / sum(map(len, texts.targets))


def kept_loss(lm: FrozenLM, row: TrainedRow, inputs: PrefixInputs, texts: CaptionTexts) -> float:
    """Return :func:`validation_loss`, read from the row's folder if it was computed before."""
    seen = [[example.image, example.prompt, example.target] for example in texts.examples]
    key = hash_value([seen, float(inputs.x.double().sum())])[:16]
    path = row.folder / "validation.json" if row.folder else None
    known = finished_record(path) if path is not None else None
    if known is not None and known.get("key") == key:
        return known["loss"]
    loss = validation_loss(lm, row.prefix, inputs, texts.examples)
    if path is not None:
        write_record(path, {"key": key, "loss": loss, "texts": len(texts.examples)})
    return loss


def open_prefix(folder: Path, chosen: ChosenPrefix, lm: FrozenLM) -> Prefix:
    """Read the trained prefix of a choice.

    Raises:
        UserError: it is not there, is damaged, or belongs to a language model of another width.
    """
    path = folder / chosen.row / "prefix.safetensors"
    if not path.exists():
        raise UserError(f"The trained prefix {path} is not there.", "Train it again with --train.")
    try:
        tensors = read_module(path)
        slots, width = tensors["bias"].shape
        e = tensors["token_mean"].shape[1] if "token_mean" in tensors else 1
        d = tensors["h_mean"].shape[0] if "h_mean" in tensors else 1
        if width != lm.width:
            raise UserError(
                f"The prefix was trained for a language model of width {width}; {lm.name} has"
                f" {lm.width}.",
                f"It was trained with {chosen.language_model}.",
            )
        shape = (slots - chosen.aape_tokens, e)
        prefix = Prefix(chosen.kind, shape, d, width, lm.scale, chosen.aape_tokens)
        prefix.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(
            f"The trained prefix {path} is damaged: {error}.", "Train it again with --train."
        ) from error
    return prefix.eval()


def read_choice(folder: Path) -> ChosenPrefix | None:
    """Return the choice that lies in a folder of rows, if there is one.

    Raises:
        UserError: it is not valid.
    """
    path = folder / FILE
    return ChosenPrefix.parse(read_record(path), str(path)) if path.exists() else None

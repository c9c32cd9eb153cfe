"""Draws of shots: same shots and seed, same images; and the texts with random words beside them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ...pipeline.errors import UserError
from ..shots import ALL, Shots
from .data import ClassificationData, LabelledImages, check_enough

WAFFLE_TEXTS = 8
VAL_SHOTS = 4  # as CoOp


class Source(Protocol):
    """Something that gives a draw of shots: same shots and seed, same data."""

    dataset: str

    @property
    def class_names(self) -> list[str]:
        """Names of all classes; the position is the class id."""
        ...

    def draw(self, shots: Shots, seed: int) -> ClassificationData:
        """Return one draw."""
        ...

    def to_test(self) -> ClassificationData:
        """Return texts and test images without shots: what a target of another source is."""
        ...


def check_shots(
    dataset: str,
    names: list[str],
    labels: Sequence[int] | np.ndarray,
    shots: Shots,
    repeat: bool = False,
) -> None:
    """Stop before anything is sampled with replacement, unless ``repeat`` wishes it.

    Raises:
        UserError: a label is out of range, or a class has fewer images than shots.
    """
    array = np.asarray(labels, dtype=np.int64)
    if len(array) and (array.min() < 0 or array.max() >= len(names)):
        raise UserError(
            f"The training labels of {dataset} run from {array.min()} to {array.max()}, but there"
            f" are {len(names)} classes: 0 to {len(names) - 1}."
        )
    check_enough(
        dataset,
        names,
        array,
        1 if repeat and shots != ALL else shots,
        "add images, or draw with replacement: --repeat-images.",
    )


def sample_rows(
    labels: np.ndarray, shots: Shots, generator: random.Random, repeat: bool = False
) -> np.ndarray:
    """Sample row numbers, ``shots`` a class, in the order in which classes first occur.

    A class with fewer gives all it has, or with ``repeat`` draws with replacement, as CoOp does.
    With ``"all"`` nothing is sampled: every row, once, in its order.
    """
    if shots == ALL:
        return np.arange(len(labels), dtype=np.int64)
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        rows.setdefault(label, []).append(row)
    chosen: list[int] = []
    for candidates in rows.values():
        if repeat and len(candidates) < shots:
            chosen += generator.choices(candidates, k=shots)
        else:
            chosen += generator.sample(candidates, min(shots, len(candidates)))
    return np.array(chosen, dtype=np.int64)


def no_images(dim: int) -> LabelledImages:
    """Return an empty split."""
    return LabelledImages(np.zeros((0, dim), np.float32), np.zeros(0, np.int64))


def waffle_templates(template: str, names: list[str], count: int = WAFFLE_TEXTS) -> list[str]:
    """Return templates with random words and letters (WaffleCLIP, Roth et al. 2023).

    The same for every class and every run, so what they add holds no knowledge of a class: half
    end in "which has (random words)", half in "which has (random letters)".
    """
    generator = random.Random(0)
    words = sorted({word for name in names for word in re.findall(r"[a-z]{3,}", name.lower())})
    words += ["cloud", "marble", "ticket", "violin", "harbour", "pepper", "saddle", "lantern"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = []
    for i in range(count):
        if i % 2 == 0:
            noise = " ".join(generator.sample(words, 2))
        else:
            noise = " ".join("".join(generator.choices(letters, k=5)) for _ in range(2))
        texts.append(f"{template.rstrip('.')}, which has {noise}.")
    return texts

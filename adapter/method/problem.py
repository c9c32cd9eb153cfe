"""The training problem, as tensors and sizes: nothing here knows of files, banks or data sets.

n images, c classes, k prompts of a class, d embedding width, v augmented views of an image.
All features are float32 and unit length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...pipeline.errors import UserError


@dataclass(frozen=True)
class ClassSet:
    """The classes a predictor is asked to tell apart, as tensors.

    ``seen`` (c,) gives the position among the classes that were trained on, or -1. ``described``
    falls back on the template for new classes, unless new-class prompts were asked for. ``names``
    are for methods that read the classes with an open text tower.
    """

    template: Tensor
    ensemble: Tensor
    described: Tensor
    waffle: Tensor | None
    seen: Tensor
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.template)


@dataclass(frozen=True)
class FewShot:
    """The training problem, as tensors; labels run from 0 to c-1 over the trained classes only.

    ``val_x`` and ``val_y`` are empty where there is no validation split. ``tower`` is the encoder's
    text tower, where it is open to learned contexts.
    """

    x: Tensor
    y: Tensor
    views: Tensor | None
    classes: ClassSet
    prompts: Tensor
    mask: Tensor
    val_x: Tensor
    val_y: Tensor
    scale: float
    shots: int
    tower: Any = None

    @property
    def w(self) -> Tensor:
        """Template features (c, d)."""
        return self.classes.template

    def with_control(self, control: str, seed: int) -> FewShot:
        """Replace the prompts as a control says; controls that change the recipe do nothing here.

        ``shuffled``: every class gets the prompts of another class. ``template``: the hand-written
        text is the only prompt. ``waffle``: the template with random words is.

        Raises:
            UserError: the waffle control where no encoder made such texts.
        """
        c = len(self.classes)
        if control == "shuffled":
            # a random cycle through all classes: no class keeps its own prompts
            order = torch.randperm(c, generator=torch.Generator().manual_seed(seed))
            source = torch.empty_like(order)
            source[order] = order.roll(1)
            return replace(self, prompts=self.prompts[source], mask=self.mask[source])
        one = torch.ones(c, 1, dtype=torch.bool)
        if control == "template":
            return replace(self, prompts=self.classes.ensemble[:, None], mask=one)
        if control == "waffle":
            if self.classes.waffle is None:
                raise UserError(
                    "The waffle control needs texts with random words, and these features come"
                    " without an encoder to embed them.",
                    "Add waffle_text.features (c, d) to the feature file, or train from a bank.",
                )
            return replace(self, prompts=self.classes.waffle[:, None], mask=one)
        return self

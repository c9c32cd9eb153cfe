"""What the method is given: the classes to tell apart and the training problem, as tensors.

n images, c classes, k prompts of a class, d embedding width, v augmented views of an image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.errors import UserError

T = TypeVar("T")

# Mean length of text vectors before they are scaled to 1, where a source does not know its own:
# that of 2,068 real ViT-B/32 vectors of "a {name}" (names of LVIS, Objects365 and OpenImages as
# facebookresearch/Detic publishes them; standard deviation 0.7, from 8.0 to 13.4).
TEXT_NORM = 9.85


@dataclass(frozen=True)
class ClassText:
    """What stands for a class: ``unit((1 − β)·base + β·descriptions)``.

    Attributes:
        base: ``template`` or ``ensemble``. share: β; a class without descriptions has the base.
    """

    base: str = "template"
    share: float = 0.0


@dataclass(frozen=True)
class ClassSet:
    """The classes a predictor is asked to tell apart.

    Attributes:
        template: (c, d) of the data set's own template. ensemble: (c, d), mean over all templates.
        described: (c, d), mean of the descriptions of each class; the template where it has none.
        waffle: (c, d), mean over the template with random words, or absent.
        seen: (c,) position among the classes that were trained on, or -1.
        names: for methods that read the classes with an open text tower.
        prompted: (c,), true where a class has descriptions; absent: all of them have.
    """

    template: Tensor
    ensemble: Tensor
    described: Tensor
    waffle: Tensor | None
    seen: Tensor
    names: tuple[str, ...] = ()
    prompted: Tensor | None = None

    def __len__(self) -> int:
        return len(self.template)

    def to(self, device: torch.device) -> ClassSet:
        """Return the same on a device."""
        return _moved(self, device)

    def text(self, choice: ClassText) -> Tensor:
        """Return the class texts (c, d) of a choice, unit length."""
        start = self.ensemble if choice.base == "ensemble" else self.template
        if not choice.share:
            return start
        mixed = F.normalize(torch.lerp(start, self.described, choice.share), dim=-1)
        if self.prompted is None:
            return mixed
        return torch.where(self.prompted[:, None], mixed, start)


@dataclass(frozen=True)
class FewShot:
    """The training problem; labels run from 0 to c-1 over the trained classes only.

    ``val_x`` and ``val_y`` are empty where there is no validation split. ``tower`` is the encoder's
    text tower, where it is open to learned contexts. ``text_norms`` (c,) are the lengths of the
    template vectors before they were scaled to 1, where known. ``shots`` are images a class, of
    unequal numbers the median: rules by shots go by it. ``before`` (n, e) and ``before_views``
    (n, v, e) are the features of the images before CLIP's last ``projection`` (e, d), where they
    were asked for.
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
    text_norms: Tensor | None = None
    before: Tensor | None = None
    before_views: Tensor | None = None
    projection: Tensor | None = None

    def to(self, device: torch.device) -> FewShot:
        """Return the same on a device; an open text tower stays where it is."""
        return replace(_moved(self, device), classes=self.classes.to(device))

    @property
    def w(self) -> Tensor:
        """Template features (c, d)."""
        return self.classes.template

    @property
    def raw_w(self) -> Tensor:
        """Template features (c, d) at the length the encoder gives them, or at its usual length.

        Methods that train class vectors by a fixed rate start there: the longer a vector, the less
        one step turns it.
        """
        if self.text_norms is None:
            return TEXT_NORM * self.w
        return self.text_norms[:, None] * self.w

    def with_control(self, control: str, seed: int) -> FewShot:
        """Replace the prompts as a control says; controls that change the recipe do nothing here.

        ``shuffled``: every class gets the prompts of another class. ``template``: the hand-written
        text is the only prompt. ``waffle``: the template with random words is.

        Raises:
            UserError: the waffle control where no encoder made such texts.
        """
        classes = self.classes
        if control == "shuffled":
            source = other_classes(len(classes), seed)
            classes = replace(classes, described=classes.described[source])
            return replace(
                self, classes=classes, prompts=self.prompts[source], mask=self.mask[source]
            )
        if control not in ("template", "waffle"):
            return self
        text = classes.ensemble if control == "template" else classes.waffle
        if text is None:
            raise no_random_words()
        one = torch.ones(len(classes), 1, dtype=torch.bool, device=text.device)
        classes = replace(classes, described=text, prompted=None)
        return replace(self, classes=classes, prompts=text[:, None], mask=one)


def _moved(record: T, device: torch.device) -> T:
    """Return a dataclass with its tensors on a device."""
    values = vars(record).items()
    moved = {name: value.to(device) for name, value in values if isinstance(value, Tensor)}
    return replace(record, **moved)  # type: ignore[type-var]


def other_classes(classes: int, seed: int) -> Tensor:
    """Return a random cycle (c,) through all classes: no class keeps its own position."""
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    source = torch.empty_like(order)
    source[order] = order.roll(1)
    return source


def no_random_words() -> UserError:
    """Return the error of the control with random words where nothing made such texts."""
    return UserError(
        "The waffle control needs texts with random words, and these features come without an"
        " encoder to embed them.",
        "Add waffle_text.features (c, d) to the feature file, or train from a bank.",
    )

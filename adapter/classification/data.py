"""What a classifier is trained and tested on: features, texts, labels, and the splits of classes.

n images, c classes, k prompts of a class, d embedding width, v augmented views of an image.
All features are float32 and unit length. Labels are class ids: positions in ``class_names``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...pipeline.errors import UserError
from ..arrays import all_finite
from ..method.problem import ClassSet, FewShot, no_random_words, other_classes
from ..shots import ALL, Shots

if TYPE_CHECKING:
    from ...pipeline.encoders.prompt_tower import PromptTower
    from .best_names import OtherTexts

_CLASSES_A_PIECE = 1000


def _rows(array: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return some rows; all of them in their order are not copied, for they may be gigabytes."""
    whole = len(ids) == len(array) and np.array_equal(ids, np.arange(len(array)))
    return array if whole and array.flags.writeable else array[ids]


@dataclass(frozen=True)
class LabelledImages:
    """Features x (n, d), labels y (n,), and views (n, v, d) of the same images if there are any.

    ``before`` (n, e) and ``before_views`` (n, v, e) are features before CLIP's last projection.
    ``contents`` are the SHA-256 of the photos' files, where there are files.
    """

    x: np.ndarray
    y: np.ndarray
    views: np.ndarray | None = None
    paths: tuple[Path, ...] = ()
    before: np.ndarray | None = None
    before_views: np.ndarray | None = None
    contents: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.y)

    def of(self, class_ids: Sequence[int]) -> LabelledImages:
        """Keep the images of some classes; labels become positions in ``class_ids``.

        Where all are kept no feature is copied: there may be gigabytes of them.
        """
        position = {class_id: i for i, class_id in enumerate(class_ids)}
        keep = np.flatnonzero(np.isin(self.y, np.asarray(class_ids, dtype=np.int64)))

        return LabelledImages(
            x=_rows(self.x, keep),
            y=np.array([position[int(label)] for label in self.y[keep]], dtype=np.int64),
            views=None if self.views is None else _rows(self.views, keep),
            paths=tuple(self.paths[i] for i in keep) if self.paths else (),
            before=None if self.before is None else _rows(self.before, keep),
            before_views=None if self.before_views is None else _rows(self.before_views, keep),
            contents=tuple(self.contents[i] for i in keep) if self.contents else (),
        )


@dataclass(frozen=True)
class ClassTexts:
    """Everything that is known about the classes in words.

    Attributes:
        names: class names; the position is the class id.
        template: (c, d) of the data set's own template, "a photo of a {}." by default.
        ensemble: (c, d), mean over all templates; equals ``template`` where there is only one.
        prompts: (c, k, d) of the LLM's descriptions, zero padded, with ``mask`` (c, k).
        waffle: (c, d), mean over the template with random words (Roth et al. 2023), or absent.
        norms: (c,), lengths of the template vectors as the encoder gives them, where known.
        others: other names of classes, where a bank knows any.
        keys: what tells classes apart whose names are the same, such as ImageNet's two "missile":
            their folders; empty where nothing but names is known.
    """

    names: list[str]
    template: np.ndarray
    ensemble: np.ndarray
    prompts: np.ndarray
    mask: np.ndarray
    waffle: np.ndarray | None = None
    norms: np.ndarray | None = None
    others: OtherTexts | None = None
    keys: tuple[str, ...] = ()

    def positions_in(self, other: ClassTexts) -> list[int | None]:
        """Return where each of these classes is in ``other``: by key, else by name.

        Of names that repeat, the first is the first of the other, and so on.
        """
        by_key = bool(self.keys and other.keys) and set(self.keys) <= set(other.keys)
        own = self.keys if by_key else _numbered(self.names)
        theirs = other.keys if by_key else _numbered(other.names)
        where = {key: i for i, key in enumerate(theirs)}
        return [where.get(key) for key in own]

    @cached_property
    def described(self) -> np.ndarray:
        """(c, d): mean prompt of each class, unit length; the template where it has none."""
        total = np.zeros(self.template.shape, self.prompts.dtype)
        for start in range(0, len(total), _CLASSES_A_PIECE):  # the product is as large as prompts
            rows = slice(start, start + _CLASSES_A_PIECE)
            total[rows] = (self.prompts[rows] * self.mask[rows, :, None]).sum(1)
        norm = np.linalg.norm(total, axis=-1, keepdims=True)
        mean = total / np.maximum(norm, 1e-12)
        some = np.any(self.mask, axis=1, keepdims=True)
        return np.where(some, mean, self.template).astype(np.float32)

    def with_control(self, control: str, seed: int) -> ClassTexts:
        """Replace the prompts of all classes, new ones too, as a control says.

        ``FewShot.with_control`` does the same to the trained classes alone.

        Raises:
            UserError: the waffle control where no encoder made such texts.
        """
        if control == "shuffled":
            source = other_classes(len(self.names), seed).numpy()
            return replace(self, prompts=self.prompts[source], mask=self.mask[source])
        if control not in ("template", "waffle"):
            return self
        text = self.ensemble if control == "template" else self.waffle
        if text is None:
            raise no_random_words()
        return replace(self, prompts=text[:, None], mask=np.ones((len(text), 1), dtype=bool))


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return each name with how often it came before.

    >>> _numbered(["missile", "dog", "missile"])
    [('missile', 0), ('dog', 0), ('missile', 1)]
    """
    seen: Counter[str] = Counter()
    out = []
    for name in names:
        out.append((name, seen[name]))
        seen[name] += 1
    return out


@dataclass(frozen=True)
class ClassificationData:
    """One draw of shots with everything needed to train and test on it; 0 shots to test alone.

    Raises:
        UserError: on construction, if widths disagree, a label is out of range, a class has fewer
            images than shots, there is one class only, or features are not finite.
    """

    dataset: str
    encoder: str
    texts: ClassTexts
    train: LabelledImages
    val: LabelledImages
    test: LabelledImages
    base_ids: list[int]
    new_ids: list[int]
    shots: Shots
    seed: int
    logit_scale: float = 100.0
    notes: list[str] = field(default_factory=list)
    tower: PromptTower | None = None
    projection: np.ndarray | None = None

    def __post_init__(self) -> None:
        c, d = self.texts.template.shape
        if len(self.texts.names) != c or c < 2:
            raise UserError(
                f"{self.dataset} has {len(self.texts.names)} class names and {c} class texts;"
                " a classifier needs at least two classes and one text for each."
            )
        for name, split in self.splits().items():
            self._check(name, split, c, d)
        check_enough(
            self.dataset,
            self.texts.names,
            self.train.y,
            self.shots,
            "add images.",
        )

    def splits(self) -> dict[str, LabelledImages]:
        """Return the three splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def _check(self, name: str, split: LabelledImages, c: int, d: int) -> None:
        if not len(split):
            if name == "val" or (name == "train" and self.shots == 0):
                return
            raise UserError(f"The {name} split of {self.dataset} has no images.")
        if split.x.shape != (len(split.y), d):
            raise UserError(
                f"The {name} features of {self.dataset} have shape {split.x.shape}, but there are"
                f" {len(split.y)} labels and the texts have width {d}.",
                "Features and texts must come from the same encoder.",
            )
        if split.y.min() < 0 or split.y.max() >= c:
            raise UserError(
                f"The {name} labels of {self.dataset} run from {split.y.min()} to {split.y.max()},"
                f" but there are {c} classes: 0 to {c - 1}."
            )
        if not all_finite(split.x):
            raise UserError(
                f"The {name} features of {self.dataset} have values that are not finite."
            )

    @cached_property
    def hash(self) -> str:
        """Content of everything that decides a result, as 32 hex digits."""
        digest = hashlib.sha256(f"{self.logit_scale}|{self.base_ids}|{self.new_ids}".encode())
        texts = self.texts
        arrays = [texts.template, texts.ensemble, texts.prompts, texts.mask, texts.waffle]
        arrays.append(texts.norms)
        for split in self.splits().values():
            arrays += [split.x, split.y, split.views]
        for array in arrays:
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:32]

    def few_shot(self, class_ids: Sequence[int], device: str = "cpu") -> FewShot:
        """Return the training problem over some classes.

        Raises:
            UserError: one of them has no prompts.
        """
        bare = [self.texts.names[i] for i in class_ids if not self.texts.mask[i].any()]
        if bare:
            raise UserError(
                f"{len(bare)} classes of {self.dataset} have no kept prompt in the bank:"
                f" {', '.join(map(repr, bare[:5]))}{' …' if len(bare) > 5 else ''}.",
                "Generate prompts for them: aape generate-prompts continues an existing bank.",
            )
        ids = list(class_ids)
        train, val = self.train.of(ids), self.val.of(ids)

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        def some(array: np.ndarray | None) -> Tensor | None:
            return None if array is None else tensor(array)

        return FewShot(
            x=tensor(train.x),
            y=tensor(train.y),
            views=some(train.views),
            classes=self.class_set(ids, seen=ids, device=device),
            prompts=tensor(_rows(self.texts.prompts, np.asarray(ids, dtype=np.int64))),
            mask=tensor(self.texts.mask[ids]),
            val_x=tensor(val.x),
            val_y=tensor(val.y),
            scale=self.logit_scale,
            shots=self._typical(train.y, len(ids)),
            tower=self.tower,
            text_norms=None if self.texts.norms is None else tensor(self.texts.norms[ids]),
            before=some(train.before),
            before_views=some(train.before_views),
            projection=some(self.projection),
        )

    def described(self, protocol: str, shots: Shots, trained: Sequence[int]) -> dict[str, Any]:
        """Return what an adapter of this draw says of where it is from."""
        names = self.texts.names
        return {
            "dataset": self.dataset,
            "encoder": self.encoder,
            "protocol": protocol,
            "shots": shots,
            "class_names": [names[i] for i in trained],
            "all_class_names": names,
        }

    def _typical(self, labels: np.ndarray, classes: int) -> int:
        """Return the shots that rules by shots go by; of unequal numbers the median."""
        if self.shots != ALL:
            return self.shots
        return max(1, int(np.median(np.bincount(labels, minlength=classes))))

    def class_set(
        self,
        class_ids: Sequence[int],
        seen: Sequence[int],
        new_classes: str = "bank",
        device: str = "cpu",
    ) -> ClassSet:
        """Return the texts of some classes; those not in ``seen`` are new to the predictor.

        New classes have what the bank says of them, or with ``new_classes="name"`` the template
        alone, as in the paper.
        """
        ids = list(class_ids)
        position = {class_id: i for i, class_id in enumerate(seen)}
        where = torch.tensor([position.get(i, -1) for i in ids], device=device)
        texts = self.texts

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array[ids])).to(device)

        template, ensemble = tensor(texts.template), tensor(texts.ensemble)
        described, prompted = tensor(texts.described), tensor(np.any(texts.mask, axis=1))
        if new_classes == "name":
            new = (where < 0)[:, None]
            described = torch.where(new, template, described)
            ensemble = torch.where(new, template, ensemble)
            prompted = prompted & ~new[:, 0]
        return ClassSet(
            template=template,
            ensemble=ensemble,
            described=described,
            waffle=None if texts.waffle is None else tensor(texts.waffle),
            seen=where,
            names=tuple(texts.names[i] for i in ids),
            prompted=prompted,
        )


def check_enough(
    dataset: str, names: Sequence[str], labels: np.ndarray, shots: Shots, hint: str
) -> None:
    """Raise :class:`UserError` if a class has fewer images than shots; ``hint``: "add images.".

    With ``"all"`` a class needs one image.
    """
    if shots == ALL:
        _check_some(dataset, names, labels)
        return
    counts = np.bincount(labels, minlength=len(names))
    short = [i for i in range(len(names)) if counts[i] < shots]
    if short:
        least = int(counts.min())
        fewer = f"Choose shots {least}, which all have, or" if least else "You can"
        worst = ", ".join(f"{names[i]!r} ({counts[i]})" for i in short[:3])
        raise UserError(
            f"{len(short)} of {len(names)} classes of {dataset} have fewer training images than"
            f" {shots} shots: {worst}{' …' if len(short) > 3 else ''}.",
            f"{fewer} {hint} Or train on what there is: shots all.",
        )


def _check_some(dataset: str, names: Sequence[str], labels: np.ndarray) -> None:
    bare = sorted(set(range(len(names))) - set(labels.tolist()))
    if bare:
        some = ", ".join(repr(names[i]) for i in bare[:3])
        raise UserError(
            f"{len(bare)} of {len(names)} classes of {dataset} have no training image:"
            f" {some}{' …' if len(bare) > 3 else ''}.",
            "Add images of them, or take them out of the data set.",
        )

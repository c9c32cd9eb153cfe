"""Arrays of a caller as the method wants them: texts and descriptions a class, labels as positions.

n images, c classes, k prompts of a class, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..pipeline.errors import BadValue
from .method.problem import ClassSet, FewShot

if TYPE_CHECKING:
    from .method.adapter import FittedAdapter
    from .method.recipe import Recipe


def unit_length(x: np.ndarray) -> np.ndarray:
    """Scale the last axis to length one; zeros stay zeros.

    >>> unit_length(np.array([[0.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    length = np.sqrt(np.square(x, dtype=np.float64).sum(-1, keepdims=True))  # of 1e25, too
    return (x / np.maximum(length, 1e-12)).astype(np.float32)


def plain(value: Any) -> Any:
    """Return tensors, and lists of them, as arrays; they may stand anywhere and want gradients.

    >>> plain([torch.ones(2, requires_grad=True), torch.zeros(2)])[0].tolist()
    [1.0, 1.0]
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.is_floating_point() else value).numpy()
    if isinstance(value, (list, tuple)) and any(isinstance(part, Tensor) for part in value):
        return [plain(part) for part in value]
    return value


@dataclass(frozen=True)
class ClassRows:
    """Texts (c, d) and descriptions (c, k, d) with their mask (c, k), one row a class."""

    text: np.ndarray
    prompts: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, text: Any, prompts: Any, dim: int, normalise: bool) -> ClassRows:
        """Check and convert what a caller gives.

        Args:
            text: (c, d). prompts: (c, k, d), c arrays (k_i, d), or None.
            dim: d of the features. normalise: scale to unit length.

        Raises:
            BadValue: shapes do not fit, or a value is not finite.
        """
        array = _finite(text, "class_text")
        if array.ndim != 2 or array.shape[1] != dim:
            raise BadValue(
                f"class_text has shape {array.shape}; features of width {dim} need (c, {dim}).",
                "Embed names and images with the same encoder.",
            )
        if not len(array):
            raise BadValue("class_text has no row.", "Pass one row a class.")
        none = np.zeros((0, dim), np.float32)
        lists = [none] * len(array)
        if prompts is not None:
            entries = _listed(prompts, "prompts", "(c, k, d), or one array (k, d) a class")
            lists = [_finite(entry, "prompts") for entry in entries]
            lists = [entry if entry.size else none for entry in lists]
            wrong = [entry.shape for entry in lists if entry.shape != (len(entry), dim)]
            if len(lists) != len(array) or wrong:
                shapes = f" of shapes {wrong[:3]}" if wrong else ""
                raise BadValue(
                    f"prompts are for {len(lists)} classes{shapes}, class_text for {len(array)} of"
                    f" width {dim}.",
                    "Pass (c, k, d), or one array (k, d) a class; one without prompts has [].",
                )
        k = max(1, *[len(entry) for entry in lists])
        padded = np.zeros((len(array), k, dim), np.float32)
        mask = np.zeros((len(array), k), bool)
        for i, entry in enumerate(lists):
            padded[i, : len(entry)] = unit_length(entry) if normalise else entry
            mask[i, : len(entry)] = True
        return cls(unit_length(array) if normalise else array, padded, mask)

    def pick(self, rows: Sequence[int]) -> ClassRows:
        """Return some classes."""
        return ClassRows(self.text[rows], self.prompts[rows], self.mask[rows])

    @staticmethod
    def subset(classes: ClassSet, rows: Sequence[int]) -> ClassSet:
        """Return some classes of a set."""
        parts = {
            name: getattr(classes, name)[rows]
            for name in ("template", "ensemble", "described", "seen")
        }
        prompted = None if classes.prompted is None else classes.prompted[rows]
        return replace(classes, **parts, prompted=prompted)

    def class_set(self, seen: Sequence[int], device: Any) -> ClassSet:
        """Return the classes as the method sees them; ``seen`` are positions, -1 for new ones."""
        total = (self.prompts * self.mask[..., None]).sum(1)
        some = np.any(self.mask, axis=1)
        described = np.where(some[:, None], unit_length(total), self.text)
        text = torch.from_numpy(np.ascontiguousarray(self.text)).to(device)
        return ClassSet(
            text,
            text,
            torch.from_numpy(described.astype(np.float32)).to(device),
            None,
            torch.tensor(list(seen), device=device),
            prompted=torch.from_numpy(some).to(device),
        )

    def problem(
        self,
        x: np.ndarray,
        y: np.ndarray,
        val_x: np.ndarray,
        val_y: np.ndarray,
        scale: float,
        device: str,
    ) -> FewShot:
        """Return the training problem; a class without prompts has its text as the only one."""
        bare = ~self.mask.any(1)
        prompts, mask = self.prompts.copy(), self.mask.copy()
        prompts[bare, 0], mask[bare, 0] = self.text[bare], True

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        return FewShot(
            x=tensor(x),
            y=tensor(y.astype(np.int64)),
            views=None,
            classes=self.class_set(range(len(self.text)), device),
            prompts=tensor(prompts),
            mask=tensor(mask),
            val_x=tensor(val_x),
            val_y=tensor(val_y.astype(np.int64)),
            scale=scale,
            shots=int(np.bincount(y).min()),
        )

    def classes(
        self, labels: Sequence[Any], trained: Sequence[Any], adapter: FittedAdapter
    ) -> ClassSet:
        """Return classes to predict: those in ``trained`` keep the text they were trained with."""
        place = {label: i for i, label in enumerate(trained)}
        seen = [place.get(label, -1) for label in labels]
        device = adapter.text.device
        found = self.class_set(seen, device)
        chosen = found.text(adapter.class_text)
        known = found.seen >= 0
        chosen[known] = adapter.text[found.seen[known]]
        return texts_as_they_are(chosen, found.seen)


def texts_as_they_are(text: Tensor, seen: Tensor) -> ClassSet:
    """Return classes whose texts (c, d) are final: no choice of text changes them.

    Args:
        text: (c, d). seen: (c,) positions among the trained classes, -1 for new ones.
    """
    bare = torch.zeros(len(text), dtype=torch.bool, device=text.device)
    return ClassSet(text, text, text, None, seen, prompted=bare)


def trained_classes(adapter: FittedAdapter) -> ClassSet:
    """Return the classes that an adapter was trained on, with the texts it was trained with."""
    seen = torch.arange(len(adapter.text), device=adapter.text.device)
    return texts_as_they_are(adapter.text, seen)


def class_rows(
    text: Any, prompts: Any, names: Sequence[Any] | None, labels: np.ndarray, dim: int, unit: bool
) -> ClassRows:
    """Return texts and descriptions of the labels that occur, in their order.

    Args:
        text: (c, d), or None where nothing is known in words. prompts: as :meth:`ClassRows.of`.
        names: labels of the rows, or None. labels: (c',) sorted, that occur.

    Raises:
        BadValue: rows and labels do not fit together.
    """
    if text is None:
        if prompts is not None or names is not None:
            what = "classes" if prompts is None else "prompts"
            raise BadValue(f"{what} without class_text.", "Pass both, one row a class.")
        text = np.zeros((len(labels), dim), np.float32)
        return ClassRows.of(text, None, dim, normalise=False)
    rows = ClassRows.of(text, prompts, dim, unit)
    if names is not None:
        place = {label: i for i, label in enumerate(label_list(names))}
        if len(place) != len(rows.text):
            raise BadValue(f"{len(place)} different classes, but class_text of {len(rows.text)}.")
        unknown = [label for label in labels.tolist() if label not in place]
        if unknown:
            raise BadValue(f"Labels without a class text: {unknown[:5]}.", "Add them to classes.")
        return rows.pick([place[label] for label in labels.tolist()])
    if len(rows.text) == len(labels):
        return rows
    numbers = np.issubdtype(labels.dtype, np.integer)
    if numbers and labels.min() >= 0 and labels.max() < len(rows.text):
        return rows.pick(labels.tolist())
    raise BadValue(
        f"y has {len(labels)} classes, class_text has {len(rows.text)} rows.",
        "Say whose they are: Classifier(classes=[…]).",
    )


def check_width(recipe: Recipe, dim: int) -> None:
    """Stop where the attention of a recipe cannot be spread over its heads.

    Raises:
        BadValue: d is no multiple of the number of heads.
    """
    heads = recipe.aggregator.heads
    if recipe.kind == "trained" and recipe.aggregator.kind == "attention" and dim % heads:
        raise BadValue(
            f"Features of width {dim} cannot be spread over {heads} heads of attention.",
            "Set aggregator.heads in the recipe to a number that divides the width.",
        )


def labels_to_json(labels: np.ndarray) -> dict[str, Any]:
    """Return labels as JSON that reads back to the same type."""
    kind = labels.dtype.kind
    if kind == "O" and all(isinstance(label, str) for label in labels):
        return {"dtype": "object", "values": labels.tolist()}
    if kind not in "biufU":
        raise BadValue(f"Labels of type {labels.dtype} cannot be saved.", "Use numbers or strings.")
    return {"dtype": "str" if kind == "U" else labels.dtype.name, "values": labels.tolist()}


def labels_from_json(about: dict[str, Any]) -> np.ndarray:
    """Return the labels of a saved classifier, or of a run: its class names, if they differ."""
    kept = about.get("labels")
    if isinstance(kept, dict) and isinstance(kept.get("values"), list):
        kind = kept.get("dtype")
        if kind in ("str", "object"):
            return np.asarray(
                [str(v) for v in kept["values"]], dtype=object if kind == "object" else str
            )
        if kind in np.sctypeDict and np.dtype(str(kind)).kind in "biuf":
            return np.asarray(kept["values"], dtype=str(kind))
    names = about.get("class_names")
    if not isinstance(names, list):
        raise BadValue("adapter_config.json names no classes.")
    if len(set(names)) == len(names):
        return np.asarray(names)
    return np.asarray(about.get("class_ids", range(len(names))))


def label_list(names: Any) -> list[Any]:
    """Return labels that a caller names.

    Raises:
        BadValue: it is no list of labels, or has none.
    """
    listed = _listed(names, "classes", "a list of labels")
    array = np.asarray(listed)
    if array.ndim != 1 or not len(array):
        raise BadValue("classes must be a list of labels, at least one.")
    return array.tolist()


def _listed(value: Any, name: str, wanted: str) -> list[Any]:
    value = plain(value)
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise BadValue(f"{name} is {value!r}.", f"Pass {wanted}.")
    return list(value)


def _finite(value: Any, name: str) -> np.ndarray:
    value = plain(value)
    try:
        if np.iscomplexobj(value):
            raise BadValue(f"{name} has complex values.")
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        if isinstance(error, BadValue):
            raise
        reason = " ".join(str(error).split())[:120]
        raise BadValue(f"{name} is no array of numbers: {reason}.") from error
    if not all_finite(array):
        raise BadValue(f"{name} has values that are not finite.")
    return array


def all_finite(array: np.ndarray) -> bool:
    """Say whether float32 values are finite: by their sum, without an array of truth values.

    >>> all_finite(np.float32([3e38, 3e38])), all_finite(np.float32([np.inf, -np.inf]))
    (True, False)
    """
    with np.errstate(invalid="ignore"):  # infinities of both signs
        return bool(np.isfinite(np.sum(array, dtype=np.float64)))

"""The method as an estimator: arrays in, labels out, with the manners of scikit-learn.

n images, c classes, k prompts of a class, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..pipeline.errors import BadValue
from ..pipeline.files import read_json
from .arrays import (
    ClassRows,
    check_width,
    class_rows,
    label_list,
    labels_from_json,
    labels_to_json,
    plain,
    trained_classes,
    unit_length,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from .method.adapter import FittedAdapter
    from .method.problem import ClassSet
    from .method.recipe import Recipe

_KIND = "classifier"


class Classifier(ClassifierMixin, BaseEstimator):
    """Few-shot classification of embeddings by what is known of the classes in words.

    Features and texts come from the same dual encoder; NumPy arrays, tensors and lists will do.

    Args:
        recipe: ``default``, ``staged``, ``literal``, a YAML file, or a ``Recipe``.
        class_text: (c, d), the embedded name of each class, if it is not given to :meth:`fit`;
            here ``clone``, ``GridSearchCV`` and ``cross_val_score`` carry it along.
        prompts: (c, k, d), or c arrays (k_i, d): embedded descriptions of each class, likewise.
        classes: labels of the rows of ``class_text``. By default the sorted labels in ``y``, or,
            where ``y`` has whole numbers below c and not all of them, the numbers of the rows.
        scale: s, the encoder's factor of cosines.
        normalise: scale features and texts to unit length, as CLIP means them.
        seed: of folds, of initial weights and of the order of images.
        device: ``auto``, ``cpu``, ``cuda``.

    Attributes:
        classes_: (c,) sorted labels that were trained. n_features_in_: d.
        adapter_: the trained :class:`aape.adapter.method.adapter.FittedAdapter`.

    Without ``class_text`` nothing is known in words, and what is left is a softmax regression whose
    ridge is chosen by folds; recipes trained by gradient need texts.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> w = rng.normal(size=(3, 8))
        >>> y = np.repeat(["cat", "dog", "owl"], 4)
        >>> x = np.repeat(w, 4, axis=0) + rng.normal(size=(12, 8)) / 4
        >>> model = Classifier(scale=10).fit(x, y, class_text=w)
        >>> model.predict(w).tolist()
        ['cat', 'dog', 'owl']
        >>> model.predict(w[:1], class_text=w[:2], classes=["tabby", "husky"]).tolist()
        ['tabby']
    """

    n_features_in_: int

    def __init__(
        self,
        recipe: str | Recipe = "default",
        *,
        class_text: ArrayLike | None = None,
        prompts: ArrayLike | Sequence[ArrayLike] | None = None,
        classes: Sequence[Any] | None = None,
        scale: float = 100.0,
        normalise: bool = True,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.recipe = recipe
        self.class_text = class_text
        self.prompts = prompts
        self.classes = classes
        self.scale = scale
        self.normalise = normalise
        self.seed = seed
        self.device = device

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        class_text: ArrayLike | None = None,
        prompts: ArrayLike | Sequence[ArrayLike] | None = None,
        val_x: ArrayLike | None = None,
        val_y: ArrayLike | None = None,
    ) -> Classifier:
        """Train on images and their labels.

        Args:
            x: (n, d) features. y: (n,) labels: numbers or strings.
            class_text: (c, d), instead of the constructor's; rows as ``classes`` says.
            prompts: (c, k, d) or c arrays (k_i, d), instead of the constructor's.
            val_x, val_y: (m, d), (m,) of the same classes, where there are validation images;
                otherwise folds of ``x`` decide.

        Raises:
            ValueError: sizes, labels or the recipe do not fit together, or a value is not finite.
                Where scikit-learn does not find it, it is a ``BadValue`` with a hint. The model
                stays as it was before.
        """
        before = dict(vars(self))
        try:
            self._fit(x, y, class_text, prompts, val_x, val_y)
        except BaseException:
            # half of another fit beside the weights of the last one would give wrong labels
            vars(self).clear()
            vars(self).update(before)
            raise
        return self

    def _fit(self, x: Any, y: Any, class_text: Any, prompts: Any, val_x: Any, val_y: Any) -> None:
        import torch

        from ..pipeline.encoders.base import pick_device
        from .method.recipe import Recipe, load_recipe
        from .method.train import fit

        self._check_parameters()
        given: Any = (plain(x), plain(y))  # scikit-learn checks what they are
        checked: Any = validate_data(self, *given, dtype=np.float32, ensure_min_samples=1)
        features, labels = checked
        check_classification_targets(labels)
        self.classes_, positions = np.unique(labels, return_inverse=True)
        recipe = self.recipe if isinstance(self.recipe, Recipe) else load_recipe(str(self.recipe))
        text = self.class_text if class_text is None else class_text
        described = self.prompts if prompts is None else prompts
        if text is None and recipe.kind != "convex":
            raise BadValue(
                f"The recipe {recipe.name!r} needs class_text (c, d).", "Pass it to fit."
            )
        if len(self.classes_) < 2:
            raise BadValue("Only one class is in y; a classifier needs at least two classes.")
        check_width(recipe, features.shape[1])
        rows = class_rows(
            text, described, self.classes, self.classes_, features.shape[1], self.normalise
        )
        held, held_labels = self._validation(val_x, val_y)
        device = str(pick_device(str(self.device)))
        problem = rows.problem(
            self._unit(features), positions, held, held_labels, float(self.scale), device
        )
        self.adapter_: FittedAdapter = fit(problem, recipe, int(self.seed))
        self.has_texts_ = text is not None
        self._device = torch.device(device)

    def _check_parameters(self) -> None:
        """Check what scikit-learn's manners leave unchecked in a constructor."""
        if isinstance(self.seed, bool) or not isinstance(self.seed, Integral):
            raise BadValue(f"seed is {self.seed!r}.", "Pass a whole number.")
        if not 0 <= self.seed < 2**32:
            raise BadValue(f"seed is {self.seed}.", "Pass one from 0 to 4294967295.")
        scale = self.scale
        if not isinstance(scale, Real) or not np.isfinite(float(scale)) or float(scale) <= 0:
            raise BadValue(f"scale is {scale!r}.", "Pass a positive number; CLIP's is about 100.")
        if not isinstance(self.normalise, (bool, np.bool_)):
            raise BadValue(f"normalise is {self.normalise!r}.", "Pass True or False.")

    def _validation(
        self, x: ArrayLike | None, y: ArrayLike | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if x is None and y is None:
            return np.zeros((0, self.n_features_in_), np.float32), np.zeros(0, np.int64)
        if x is None or y is None:
            raise BadValue("val_x and val_y belong together.", "Pass both, or neither.")
        given: Any = (plain(x), plain(y))
        checked: Any = validate_data(self, *given, dtype=np.float32, reset=False)
        features, labels = checked
        positions = np.searchsorted(self.classes_, labels).clip(max=len(self.classes_) - 1)
        if (self.classes_[positions] != labels).any():
            raise BadValue("val_y has labels that y has not.", "Leave those images out.")
        return self._unit(features), positions

    def _unit(self, x: np.ndarray) -> np.ndarray:
        return unit_length(x) if self.normalise else x

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is something to predict with."""
        return hasattr(self, "adapter_")

    def _asked(
        self,
        class_text: ArrayLike | None,
        prompts: ArrayLike | Sequence[ArrayLike] | None,
        classes: Sequence[Any] | None,
    ) -> tuple[ClassSet, np.ndarray]:
        """Return the classes to tell apart, and their labels."""
        if class_text is None:
            if prompts is not None:
                raise BadValue("prompts without class_text.", "Pass both, one row a class.")
            whole = trained_classes(self.adapter_)
            if classes is None:
                return whole, self.classes_
            labels, names = list(self.classes_), label_list(classes)
            if len(set(names)) != len(names):
                raise BadValue("classes names a class twice.")
            unknown = [name for name in names if name not in labels]
            if unknown:
                raise BadValue(
                    f"These classes were not trained: {unknown[:5]}.", "Pass their class_text."
                )
            chosen = [labels.index(name) for name in names]
            return ClassRows.subset(whole, chosen), self.classes_[chosen]
        rows = ClassRows.of(class_text, prompts, self.n_features_in_, self.normalise)
        names = np.arange(len(rows.text)) if classes is None else np.asarray(label_list(classes))
        if len(names) != len(rows.text) or len(set(names.tolist())) != len(names):
            raise BadValue(f"{len(rows.text)} rows of class_text need as many different classes.")
        trained = [] if classes is None else self.classes_.tolist()
        return rows.classes(names.tolist(), trained, self.adapter_), names

    def _logits(
        self,
        x: ArrayLike,
        class_text: ArrayLike | None,
        prompts: ArrayLike | Sequence[ArrayLike] | None,
        classes: Sequence[Any] | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return logits (n, c) and the labels (c,) of their columns."""
        tensor, asked, labels = self._asked_of(x, class_text, prompts, classes)
        return self.adapter_.logits(tensor, asked).cpu().numpy(), labels

    def _asked_of(
        self,
        x: ArrayLike,
        class_text: ArrayLike | None,
        prompts: ArrayLike | Sequence[ArrayLike] | None,
        classes: Sequence[Any] | None,
    ) -> tuple[Tensor, ClassSet, np.ndarray]:
        """Return features (n, d), the c classes to tell apart, and their labels (c,)."""
        import torch

        check_is_fitted(self)
        given: Any = plain(x)
        features: Any = validate_data(self, given, dtype=np.float32, reset=False)
        asked, labels = self._asked(class_text, prompts, classes)
        unit = np.ascontiguousarray(self._unit(features))
        return torch.from_numpy(unit).to(self._device), asked, labels

    def predict(
        self,
        x: ArrayLike,
        *,
        class_text: ArrayLike | None = None,
        prompts: ArrayLike | Sequence[ArrayLike] | None = None,
        classes: Sequence[Any] | None = None,
    ) -> np.ndarray:
        """Return a label (n,) for images (n, d).

        Args:
            class_text: (c', d) of the classes to tell apart, if not those that were trained.
            prompts: their descriptions, if there are any.
            classes: their labels, 0 to c'-1 by default. A label that was trained keeps its own text
                and its own terms; all others are new classes. Without ``class_text`` they are
                some of the trained ones, to choose among these alone.

        Raises:
            ValueError: sizes do not fit, or a value is not finite.
            NotFittedError: of scikit-learn.
        """
        from .method.pieces import pieces

        features, asked, labels = self._asked_of(x, class_text, prompts, classes)
        best = [
            self.adapter_.logits(rows, asked).cpu().numpy().argmax(1)
            for rows in pieces(features, len(asked))
        ]
        return labels[np.concatenate(best)]

    def predict_proba(
        self,
        x: ArrayLike,
        *,
        class_text: ArrayLike | None = None,
        prompts: ArrayLike | Sequence[ArrayLike] | None = None,
        classes: Sequence[Any] | None = None,
    ) -> np.ndarray:
        """Return probabilities (n, c) in the order of ``classes_``, or of ``classes``."""
        logits, _ = self._logits(x, class_text, prompts, classes)
        shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        return (shifted / shifted.sum(1, keepdims=True)).astype(np.float32)

    def decision_function(
        self,
        x: ArrayLike,
        *,
        class_text: ArrayLike | None = None,
        prompts: ArrayLike | Sequence[ArrayLike] | None = None,
        classes: Sequence[Any] | None = None,
    ) -> np.ndarray:
        """Return logits (n, c); of two classes the second minus the first (n,), as scikit-learn."""
        logits, _ = self._logits(x, class_text, prompts, classes)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def score(
        self,
        x: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        class_text: ArrayLike | None = None,
        prompts: ArrayLike | Sequence[ArrayLike] | None = None,
        classes: Sequence[Any] | None = None,
    ) -> float:
        """Return the share of images (n, d) whose label (n,) is right, between 0 and 1."""
        found = self.predict(x, class_text=class_text, prompts=prompts, classes=classes)
        return float(accuracy_score(column_or_1d(plain(y)), found, sample_weight=sample_weight))

    def save(self, folder: str | Path) -> Path:
        """Write ``adapter.safetensors`` and ``adapter_config.json`` into a folder; return it.

        Texts of the trained classes are among the tensors; the arrays given to the constructor are
        not kept.

        Raises:
            UserError: the folder cannot be written.
            NotFittedError: of scikit-learn.
        """
        from .run import RunFolder

        check_is_fitted(self)
        if not str(folder):
            raise BadValue("No folder is named.", "Name one to save into.")
        known = Path(folder) / "adapter_config.json"
        if known.exists() and "recipe" not in read_json(known):
            raise BadValue(f"{known} is of another tool.", "Name another folder.")
        about = self.adapter_.config() | {
            "kind": _KIND,
            "labels": labels_to_json(self.classes_),
            "features": int(self.n_features_in_),
            "normalise": bool(self.normalise),
            "seed": self.seed,
            "has_texts": self.has_texts_,
        }
        RunFolder(folder).save_weights(self.adapter_.tensors(), about)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Classifier:
        """Read what :meth:`save` wrote, or the run folder of ``aape train``.

        The labels of a run are its class names, or class ids where two classes share a name.

        Raises:
            UserError: there is no such folder, or no classifier is in it.
        """
        import torch

        from ..pipeline.encoders.base import pick_device
        from .method.adapter import FittedAdapter
        from .run import RunFolder
        from .run_classes import check_run_classes

        tensors, about = RunFolder(folder).load_weights()
        if about.get("kind") not in (_KIND, "classification"):
            raise BadValue(f"{folder} has no classifier.", "Make one with Classifier.save.")
        if about["kind"] == "classification":
            check_run_classes(about, tensors)
        place = torch.device(str(pick_device(device)))
        tensors = {name: tensor.to(place) for name, tensor in tensors.items()}
        adapter = FittedAdapter.load(tensors, about)
        model = cls(
            adapter.recipe,
            scale=adapter.scale,
            normalise=bool(about.get("normalise", True)),
            seed=_whole(about.get("seed", 0)),
            device=device,
        )
        try:
            labels = labels_from_json(about)
            if labels.ndim != 1:
                raise ValueError(f"{labels.ndim} dimensions")
        except (TypeError, ValueError, OverflowError) as error:
            raise BadValue(f"{folder} has labels that are none of a classifier.") from error
        if len(labels) != len(adapter.text):
            raise BadValue(f"{folder} names {len(labels)} classes and has {len(adapter.text)}.")
        model.classes_, model.adapter_, model._device = labels, adapter, place
        model.n_features_in_ = adapter.text.shape[1]
        model.has_texts_ = bool(about.get("has_texts", True))
        return model


def _whole(seed: Any) -> int:
    """Return the seed that a file states; it is kept for the record alone."""
    return seed if isinstance(seed, int) and 0 <= seed < 2**32 else 0

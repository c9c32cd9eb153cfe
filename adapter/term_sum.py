"""A trained adapter as a torch module: a sum of terms that a researcher can take apart and add to.

b images, n images, c classes, k prompts of a class, d embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..pipeline.errors import BadValue
from .arrays import ClassRows, check_width, texts_as_they_are, trained_classes
from .method.adapter import FittedAdapter, total
from .method.problem import ClassSet
from .method.recipe import Recipe, load_recipe
from .method.terms import Term
from .method.train import fit

_GIVEN = ("text", "mean_text", "mean_image")  # of a term, not learned by it


class Adapter(nn.Module):
    """``logits = Σ weight·term``: one weight for a trained ("seen") class, one for a new one.

    What terms learned are parameters of the module, those of convex problems too (where zero-shot
    CLIP stays as it is, there are none), so
    ``adapter.to("cuda")`` moves it, ``state_dict`` has it, and an optimiser of
    ``adapter.parameters()`` trains on. :class:`aape.Classifier` is the same with
    labels, checks and scikit-learn's manners around it.

    Attributes:
        fitted: :class:`aape.adapter.method.adapter.FittedAdapter`: recipe, terms, table, texts.

    Example:
        >>> import torch
        >>> w = torch.nn.functional.normalize(torch.randn(3, 8), dim=-1)
        >>> adapter = Adapter.fit(w.repeat(4, 1), torch.arange(3).repeat(4), w)
        >>> "zero-shot" in adapter.table  # and what else the training found worth a weight
        True
        >>> adapter.logits(w).shape, adapter.logits(w, w[:2]).shape  # trained, any new classes
        (torch.Size([3, 3]), torch.Size([3, 2]))
    """

    def __init__(self, fitted: FittedAdapter) -> None:
        super().__init__()
        self.fitted = fitted
        self.trained = nn.ModuleList()
        self.learned = nn.ParameterDict()
        for term in fitted.terms:
            self._register(term)

    @classmethod
    def fit(
        cls,
        x: Any,
        y: Any,
        class_text: Any,
        prompts: Any = None,
        *,
        recipe: str | Recipe = "default",
        scale: float = 100.0,
        seed: int = 0,
    ) -> Adapter:
        """Train on images x (n, d) with labels y (n,) from 0 to c-1.

        Args:
            class_text: (c, d). prompts: (c, k, d), or c arrays (k_i, d). All of unit length.
            recipe: name, YAML file or recipe. scale: s, the encoder's factor of cosines.
            seed: of folds, initial weights and order.

        Raises:
            UserError: sizes do not fit together, or training diverges.
        """
        features = torch.as_tensor(x, dtype=torch.float32)
        labels = torch.as_tensor(y, dtype=torch.int64).cpu().numpy()
        rows = ClassRows.of(class_text, prompts, features.shape[1], normalise=False)
        none = np.zeros((0, features.shape[1]), np.float32)
        problem = rows.problem(
            features.cpu().numpy(), labels, none, labels[:0], scale, str(features.device)
        )
        chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        check_width(chosen, features.shape[1])
        return cls(fit(problem, chosen, seed))

    @classmethod
    def load(cls, folder: str | Path) -> Adapter:
        """Read the adapter of a run folder, or of :meth:`aape.Classifier.save`.

        Raises:
            UserError: there is none.
        """
        from .run import RunFolder

        return cls(FittedAdapter.load(*RunFolder(folder).load_weights()))

    @property
    def terms(self) -> Sequence[Term]:
        """What the logits are a sum of."""
        return self.fitted.terms

    @property
    def table(self) -> dict[str, tuple[float, float]]:
        """Weights of each term by its name: for a seen class, for a new one."""
        return self.fitted.table

    def add(self, term: Any, *, seen: float = 0.0, new: float = 0.0) -> Adapter:
        """Add a term with its weights for seen and for new classes; return the adapter.

        A term has a ``name`` and is called with x (b, d) and the classes, for scores (b, c); see
        :class:`aape.adapter.method.terms.Term`. One that is a ``torch.nn.Module`` trains along.

        Raises:
            ValueError: there is a term of that name, or the term has none.
        """
        if not isinstance(getattr(term, "name", None), str):
            raise BadValue(
                f"{type(term).__name__} is no term.",
                "A term has a name, and is called with x (b, d) and the classes.",
            )
        if term.name in self.table:
            raise ValueError(f"The adapter has a term {term.name!r} already.")
        self.fitted.terms.append(term)
        self.fitted.table[term.name] = (seen, new)
        self._register(term)
        return self

    def logits(self, x: Tensor, classes: ClassSet | Tensor | None = None) -> Tensor:
        """Return logits (b, c), with gradients, for images x (b, d).

        ``classes`` are texts (c, d) of new classes, or a set with both kinds (:meth:`classes`); by
        default those that were trained.
        """
        if classes is None:
            classes = trained_classes(self.fitted)
        elif isinstance(classes, Tensor):
            nobody = torch.full((len(classes),), -1, device=classes.device)
            classes = texts_as_they_are(classes, nobody)
        return total(self.fitted.contributions(x, classes))

    forward = logits

    def classes(self, new: Tensor) -> ClassSet:
        """Return the trained classes followed by new ones with texts (c', d)."""
        s = len(self.fitted.text)
        seen = torch.arange(s + len(new), device=new.device)
        texts = torch.cat([self.fitted.text.to(new.device), new])
        return texts_as_they_are(texts, torch.where(seen < s, seen, -1))

    def _register(self, term: Any) -> None:
        """Make what a term learns a part of the module: a module, or plain tensors."""
        found = [term, *vars(term).values()] if hasattr(term, "__dict__") else [term]
        modules = [part for part in found if isinstance(part, nn.Module)][:1]
        self.trained.extend(modules)
        if not modules:
            _as_parameters(term, term.name.replace(".", " "), self.learned)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Adapter:
        """Move or convert the plain tensors of the terms with those of the modules."""
        super()._apply(fn, recurse)
        self.fitted.text = fn(self.fitted.text)
        for term in self.fitted.terms:
            if not isinstance(term, nn.Module):
                _convert(term, fn)
        return self


def _convert(value: Any, fn: Callable[[Tensor], Tensor]) -> None:
    """Apply ``fn`` to every tensor of an object and of the plain objects in it."""
    for name, part in list(getattr(value, "__dict__", {}).items()):
        if isinstance(part, nn.Parameter):
            continue  # the module has it
        if isinstance(part, Tensor):
            object.__setattr__(value, name, fn(part))  # some are frozen: they stay so for others
        elif not isinstance(part, nn.Module):
            _convert(part, fn)


def _as_parameters(value: Any, name: str, learned: nn.ParameterDict) -> None:
    """Put a parameter in the place of each tensor that an object or one in it has learned."""
    for field, part in list(getattr(value, "__dict__", {}).items()):
        if field in _GIVEN:
            continue
        if isinstance(part, Tensor) and part.is_floating_point():
            parameter = part if isinstance(part, nn.Parameter) else nn.Parameter(part.detach())
            object.__setattr__(value, field, parameter)  # some are frozen: they stay so for others
            learned[f"{name} {field}"] = parameter
        elif not isinstance(part, (Tensor, nn.Module)):
            _as_parameters(part, name, learned)

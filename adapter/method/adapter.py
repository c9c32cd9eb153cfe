"""A trained adapter: a list of terms and one table of their weights.

b images, n images, c classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...pipeline.errors import UserError
from .problem import ClassSet, ClassText
from .recipe import Recipe
from .sizes import KeptAdapter, check_sizes
from .terms import TERMS, Frame, Term

_PREDICT_ROWS = 4096
_PREDICT_SCORES = 1 << 25
# what tensors and numbers raise that do not belong together
_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
Table = dict[str, tuple[float, float]]  # weights of a term: for a seen class, for a new one


@dataclass
class FittedAdapter:
    """A trained adapter: predicts for any set of classes.

    Attributes:
        recipe: how it was trained. text: (c, d) class texts of the trained classes.
        terms: what the logits are a sum of. table: their weights.
        scale: s, the factor of cosines. class_text: what stands for a class.
        facts: settings that the model card shows. chosen: those that photos chose.
        seconds: training time. history: one dict an epoch.
    """

    recipe: Recipe
    text: Tensor
    terms: list[Term]
    table: Table
    scale: float
    class_text: ClassText = field(default_factory=ClassText)
    facts: dict[str, Any] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        """Number of trained values that are kept at test time."""
        return sum(term.parameters for term in self.terms)

    def term(self, name: str) -> Any:
        """Return a term by its name, or None where the adapter has none of it."""
        return next((term for term in self.terms if term.name == name), None)

    def contributions(self, x: Tensor, classes: ClassSet) -> dict[str, Tensor]:
        """Return what each term adds to the logits, (b, c) each; together they are the logits.

        Gradients flow through it, where a term has any to give.

        Where seen and new classes stand side by side, ``group`` shifts each of the two as a whole.
        """
        classes = replace(classes, template=classes.text(self.class_text))
        seen = classes.seen >= 0
        added: dict[str, Tensor] = {}
        group_scores = x.new_zeros(len(x), len(classes))
        both = bool(seen.any()) and not bool(seen.all())
        rule = self.recipe.group_rule if both else "none"
        for term in self.terms:
            of_seen, of_new = self.table.get(term.name, (0.0, 0.0))
            judges = of_new if rule == "shared" else float(term.name == "zero-shot")
            needed = (of_seen and seen.any()) or (of_new and not seen.all())
            if not needed and (rule == "none" or not judges):
                continue
            scores = term(x, classes)
            weight = torch.where(seen, of_seen, of_new).to(scores)
            added[term.name] = weight * scores
            if rule != "none" and judges:
                group_scores = group_scores + judges * scores
        if not added:  # a table may have no weight for such classes
            added["zero-shot"] = torch.zeros_like(group_scores)
        if rule != "none":
            added["group"] = group_shift(total(added), group_scores, seen)
        return added

    @torch.no_grad()
    def logits(self, x: Tensor, classes: ClassSet) -> Tensor:
        """Return logits (n, c) over any classes; seen ones also get their own terms.

        Of very many classes ask with a few images at a time (:func:`.pieces.pieces`).
        """
        step = max(1, min(_PREDICT_ROWS, _PREDICT_SCORES // max(1, len(classes))))
        parts = [total(self.contributions(rows, classes)) for rows in x.split(step)]
        return torch.cat(parts) if parts else x.new_zeros(0, len(classes))

    def tensors(self) -> dict[str, Tensor]:
        """Return everything to save, by name."""
        found = {"text": self.text}
        for term in self.terms:
            found |= term.tensors()
        return {name: value.detach() for name, value in found.items()}

    def config(self) -> dict[str, Any]:
        """Return what :meth:`load` needs besides the tensors."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "classes": len(self.text),
            "dim": self.text.shape[1],
            "scale": self.scale,
            "class_text": asdict(self.class_text),
            "table": {name: list(weights) for name, weights in self.table.items()},
            **self.facts,
        }

    @classmethod
    def load(
        cls, tensors: dict[str, Tensor], config: dict[str, Any], *, try_out: bool = True
    ) -> FittedAdapter:
        """Rebuild an adapter from :meth:`tensors` and :meth:`config`, those of older runs too.

        Args:
            try_out: ask it once, by which sizes show that do not fit.

        Raises:
            UserError: the two are none of an adapter, or do not belong together.
        """
        try:
            fitted = cls._load(tensors, config)
            if try_out:
                fitted._try_out()
            return fitted
        except UserError:
            raise
        except _DAMAGE as error:
            raise UserError(
                "adapter_config.json and adapter.safetensors are not of one adapter, or damaged"
                f" ({type(error).__name__}: {error}).",
                "Train again, or fetch the folder again.",
            ) from error

    @classmethod
    def _load(cls, tensors: dict[str, Tensor], config: dict[str, Any]) -> FittedAdapter:
        kept = KeptAdapter.parse(config, "adapter_config.json")
        recipe = Recipe.parse(config["recipe"], "the recipe in adapter_config.json")
        s, d = check_sizes(tensors)
        if (kept.classes or s, kept.dim or d) != (s, d):
            told = f"{kept.classes} classes and a width of {kept.dim}"
            raise ValueError(f"{told} are named, and the texts have {s} and {d}")
        text = tensors["text"]
        frame = Frame(recipe, text, kept.scale)
        terms: list[Any] = [term for kind in TERMS if (term := kind.load(tensors, frame))]
        facts = {name: config[name] for name in ("alpha", "trust") if name in config}
        if kept.table is not None:
            table = dict(kept.table)
        elif kept.trust is not None:  # before version 0.2 the weights had names of their own
            table = staged_table(terms, kept.trust.head, kept.trust.query, kept.alpha)
        else:
            raise ValueError("no weights of its terms are named")
        chosen_text = ClassText(**kept.class_text.model_dump()) if kept.class_text else ClassText()
        return cls(recipe, text, terms, table, kept.scale, chosen_text, facts)

    def _try_out(self) -> None:
        """Ask once, the trained classes as such and as new ones: each term must have its sizes."""
        text = self.text
        for seen in (torch.arange(len(text)), torch.full((len(text),), -1)):
            classes = ClassSet(text, text, text, None, seen.to(text.device))
            if not bool(torch.isfinite(self.logits(text[:1], classes)).all()):
                raise ValueError("its weights lead to logits that are not finite")


def staged_table(terms: Sequence[Term], head: float, query: float, alpha: float) -> Table:
    """Return the weights of the staged and the literal recipe.

    Seen classes keep all of the head, which was trained for them; their residual has half of what
    head and query have together.

    Args:
        terms: of the adapter. head: share of the head for new classes, the rest is zero-shot CLIP.
        query: share of the query for all. alpha: weight of the Gaussian term.
    """
    names = {term.name for term in terms}
    q = query if "query" in names else 0.0
    half = 0.5 if "residual" in names else 1.0
    table = {
        "zero-shot": (0.0, (1 - q) * (1 - head)),
        "head": (half * (1 - q), (1 - q) * head),
        "query": (half * q, q),
        "residual": (0.5, 0.0),
        "gaussian": (alpha, 0.0),
    }
    return {name: weights for name, weights in table.items() if name in names}


def total(added: dict[str, Tensor]) -> Tensor:
    """Return the sum of what terms add."""
    parts = list(added.values())
    out = parts[0].clone()
    for part in parts[1:]:
        out = out + part
    return out


def group_shift(logits: Tensor, judged: Tensor, seen: Tensor) -> Tensor:
    """Return what lets other scores say whether a class is seen or new: (b, c), alike in a group.

    With it added, ``P(i) = P_judged(group of i) · P(i | group)``. Terms that only seen classes have
    would otherwise draw images of new classes to them. Nothing changes within a group.

    Args:
        logits, judged: (b, c). seen: (c,), true where a class has training images.
    """
    out = torch.zeros_like(logits)
    for group in (seen, ~seen):
        shift = judged[:, group].logsumexp(1) - logits[:, group].logsumexp(1)
        out[:, group] += shift[:, None]
    return out

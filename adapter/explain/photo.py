"""Why a photo was called what it was called: the terms of its logits, and the sentences near it.

b = 1 photo, c classes, n sentences, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method.adapter import FittedAdapter, total
from .opened import OpenedRun, Sentences

_NEAR = 5


@dataclass(frozen=True)
class NearSentence:
    """A sentence of the bank: its cosine to the photo or its AAPE, or what it adds to a logit."""

    text: str
    class_name: str
    value: float


@dataclass(frozen=True)
class ClassAnswer:
    """One of the likeliest classes.

    Attributes:
        terms: what each term adds; their sum is ``logit``.
        of_zero_shot: the zero-shot term once more, as what the name and what the descriptions add.
        sentences: those of the class that add the most, exactly their share of ``descriptions``.
    """

    class_id: int
    name: str
    seen: bool
    probability: float
    logit: float
    terms: dict[str, float]
    of_zero_shot: dict[str, float]
    sentences: list[NearSentence]


@dataclass
class PhotoExplanation:
    """The answer for one photo and where it comes from.

    Attributes:
        zero_shot: likeliest classes and probabilities of CLIP with the template alone.
        classes: the likeliest of the adapter, best first.
        average: what each term adds on average over all classes; only what a class has above it
            can decide.
        near_photo, near_aape: sentences nearest to x and to h(x). truth: where it is known.
    """

    photo: str
    zero_shot: list[dict[str, Any]]
    classes: list[ClassAnswer]
    average: dict[str, float]
    near_photo: list[NearSentence]
    near_aape: list[NearSentence]
    aape: str
    truth: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One sentence: who won against whom, and through which terms."""
        first = self.classes[0]
        if len(self.classes) < 2:
            return f"{first.name}: there is no other class."
        second = self.classes[1]
        gaps = {name: first.terms[name] - second.terms[name] for name in first.terms}
        told = ", ".join(f"{name} {gap:+.2f}" for name, gap in gaps.items())
        return f"{first.name} leads {second.name} by {first.logit - second.logit:+.2f}: {told}."

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        return asdict(self) | {"verdict": self.verdict}


@torch.no_grad()
def explain_features(
    run: OpenedRun, x: Tensor, photo: str, *, top: int = 3, truth: str = ""
) -> PhotoExplanation:
    """Explain one photo by its features x (d,)."""
    row = x.reshape(1, -1).float()
    added = run.adapter.contributions(row, run.classes)
    logits = total(added)[0]
    shares = logits.softmax(-1)
    plain = (run.adapter.scale * row @ run.classes.template.T)[0].softmax(-1)
    count = min(top, len(run.names))
    best = logits.topk(count).indices.tolist()
    h, near_aape, told = aape_of(run.adapter, row), [], ""
    if h is None:
        told = (
            "This adapter has no generator: held-out classes chose zero-shot CLIP for new classes,"
            " so there is no h(x)."
        )
    elif run.sentences is not None:
        vector, origin, told = h
        told += _weight_of_aape(run.adapter, [run.classes.seen[i] >= 0 for i in best])
        near_aape = _nearest(run, vector, origin)
    near = _nearest(run, row, None) if run.sentences is not None else []
    return PhotoExplanation(
        photo=photo,
        zero_shot=[
            {"name": run.names[i], "class_id": i, "probability": round(float(plain[i]), 4)}
            for i in plain.topk(count).indices.tolist()
        ],
        classes=[_answer(run, row, i, added, logits, shares) for i in best],
        average={name: float(part.mean()) for name, part in added.items()},
        near_photo=near,
        near_aape=near_aape,
        aape=told,
        truth=truth,
        notes=list(run.notes),
    )


def _weight_of_aape(adapter: FittedAdapter, seen: Sequence[Any]) -> str:
    """Say where h(x) is looked at but adds nothing to the classes shown."""
    weights = [adapter.table.get(name, (0.0, 0.0)) for name in ("shared map", "query", "head")]
    if any(pair[0 if known else 1] for pair in weights for known in seen):
        return ""
    return " It adds nothing to the logits of the classes above: its weight there is 0."


def aape_of(adapter: FittedAdapter, x: Tensor) -> tuple[Tensor, Tensor | None, str] | None:
    """Return h(x) (b, d), the mean text that is taken from sentences first, and what h is.

    A linear generator lives where the mean text is the origin; one of two layers does not.
    """
    shared, query, head = (adapter.term(name) for name in ("shared map", "query", "head"))
    if shared is not None:
        h = x @ shared.matrix + shared.shift
        return (
            h,
            shared.mean_text,
            "h(x) is the shared map: what is added to zero-shot CLIP, not where the photo lies.",
        )
    if query is not None:
        inner = query.query
        h = (x - inner.mean_image) @ inner.matrix
        return h, inner.mean_text, "h(x) is the linear generator of the query."
    embedded = head.adapter.embed(x) if head is not None else None
    return None if embedded is None else (embedded, None, "h(x) is the generator of the head.")


def _nearest(run: OpenedRun, vector: Tensor, origin: Tensor | None) -> list[NearSentence]:
    sentences = run.sentences
    assert sentences is not None
    if not sentences.texts:
        return []
    keys = sentences.vectors if origin is None else sentences.vectors - origin
    cosines = (F.normalize(vector, dim=-1) @ F.normalize(keys, dim=-1).T)[0]
    order = cosines.topk(min(_NEAR, len(sentences.texts))).indices.tolist()
    return [
        NearSentence(
            sentences.texts[i], run.names[sentences.class_ids[i]], round(float(cosines[i]), 4)
        )
        for i in order
    ]


def _answer(
    run: OpenedRun, x: Tensor, i: int, added: dict[str, Tensor], logits: Tensor, shares: Tensor
) -> ClassAnswer:
    seen = bool(run.classes.seen[i] >= 0)
    parts, sentences = {}, []
    weight = run.adapter.table.get("zero-shot", (0.0, 0.0))[0 if seen else 1]
    if "zero-shot" in added and weight:
        parts, sentences = _of_zero_shot(run, x, i, weight)
    return ClassAnswer(
        class_id=i,
        name=run.names[i],
        seen=seen,
        probability=round(float(shares[i]), 6),
        logit=float(logits[i]),
        terms={name: float(part[0, i]) for name, part in added.items()},
        of_zero_shot=parts,
        sentences=sentences,
    )


def _of_zero_shot(
    run: OpenedRun, x: Tensor, i: int, weight: float
) -> tuple[dict[str, float], list[NearSentence]]:
    """Split ``weight·s·x·t`` over ``t = unit((1 − β)·base + β·p̄)``, and p̄ over its sentences."""
    classes, choice = run.classes, run.adapter.class_text
    base = (classes.ensemble if choice.base == "ensemble" else classes.template)[i]
    share = choice.share
    if classes.prompted is not None and not bool(classes.prompted[i]):
        share = 0.0
    scale = weight * run.adapter.scale
    mixed = torch.lerp(base, classes.described[i], share)
    scale = scale / float(mixed.norm()) if share else scale
    parts = {"name": float((1 - share) * scale * x[0] @ base)}
    if not share:
        return parts, []
    parts["descriptions"] = float(share * scale * x[0] @ classes.described[i])
    sentences: Sentences | None = run.sentences
    if sentences is None or sentences.whole:
        return parts, []
    own = sentences.of(i)
    vectors = sentences.vectors[own]  # (k, d): p̄ = Σ p_j / ‖Σ p_j‖
    each = share * scale * (vectors @ x[0]) / vectors.sum(0).norm()
    order = each.argsort(descending=True)[:_NEAR].tolist()
    return parts, [
        NearSentence(sentences.texts[own[j]], run.names[i], float(each[j])) for j in order
    ]

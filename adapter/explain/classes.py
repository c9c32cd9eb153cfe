"""What carries a class: its sentences one by one, whom it is confused with, what the two share.

k sentences of a class, m photos, d embedding width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.errors import UserError
from ..results import MethodResult, Results
from .opened import OpenedRun, Sentences

_CONFUSED, _SHARED = 3, 3


@dataclass(frozen=True)
class SentenceEffect:
    """What the class would lose without one sentence.

    Attributes:
        carries: change of the lead of the class's own training photos over all other photos, in
            logits: positive where the sentence draws the class to its own photos. None without
            photos.
        turns: how far the class text moves without it, ``1 − cos``.
    """

    text: str
    carries: float | None
    turns: float


@dataclass(frozen=True)
class SharedPair:
    """A sentence of the class and one of the other class that say nearly the same."""

    own: str
    other: str
    cosine: float


@dataclass(frozen=True)
class Confusion:
    """A class that this one is taken for, or that is taken for it, in the run's results.

    ``nearest_text`` says that nothing was confused, and the class is only the nearest by its text.
    """

    name: str
    taken_for_it: int
    takes_it: int
    shared: list[SharedPair]
    nearest_text: bool = False


@dataclass
class ClassExplanation:
    """All that the run knows of a class; ``accuracy`` by test set, ours and zero-shot CLIP's."""

    name: str
    class_id: int
    seen: bool
    share: float
    accuracy: dict[str, dict[str, float]]
    sentences: list[SentenceEffect]
    confused_with: list[Confusion]
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        return asdict(self)


@torch.no_grad()
def explain_class_of(
    run: OpenedRun, class_id: int, photos: tuple[Tensor, Tensor] | None, why_none: str = ""
) -> ClassExplanation:
    """Explain a class.

    Args:
        run: opened. class_id: which.
        photos: x (m, d) and labels (m,) of training photos of all classes, or None.
        why_none: why there are no photos, for the notes.
    """
    name = run.names[class_id]
    share = run.adapter.class_text.share
    notes = list(run.notes)
    effects: list[SentenceEffect] = []
    sentences = run.sentences
    if sentences is None or sentences.whole:
        notes.append("Without sentences none can be left out to see what it carries.")
    else:
        own = sentences.of(class_id)
        if not own:
            notes.append("The bank has no kept sentence about this class.")
        elif photos is None:
            notes.append(why_none)
        if not share:
            notes.append(
                "The class texts of this run hold no descriptions (β = 0), so no sentence changes"
                " a logit of it; effects are those that they would have at β = 1."
            )
        effects = sentence_effects(run, class_id, own, photos, share or 1.0)
    found = _results(run.folder.path)
    if found is None:
        notes.append("The run has no table of results, so confusions are those of the texts.")
    elif run.names.count(name) > 1:
        notes.append(
            f"Several classes are called {name!r}; what the table of results tells by that name"
            " alone is not counted."
        )
    confused = _confused(run, class_id, found)
    return ClassExplanation(
        name=name,
        class_id=class_id,
        seen=bool(run.classes.seen[class_id] >= 0),
        share=share,
        accuracy=_accuracy(found, class_id, run.names),
        sentences=effects,
        confused_with=confused,
        notes=[note for note in notes if note],
    )


def sentence_effects(
    run: OpenedRun,
    class_id: int,
    own: list[int],
    photos: tuple[Tensor, Tensor] | None,
    share: float,
) -> list[SentenceEffect]:
    """Leave out one sentence at a time and build the class text again; the strongest first.

    With x̄ the mean of the class's own photos and x̄' of all others, a sentence carries
    ``w·s·(x̄ − x̄')·(t − t without it)``.
    """
    sentences, classes = run.sentences, run.classes
    if sentences is None or not own:
        return []
    choice = run.adapter.class_text
    base = (classes.ensemble if choice.base == "ensemble" else classes.template)[class_id]
    vectors = sentences.vectors[own]  # (k, d)
    summed = vectors.sum(0)
    text = F.normalize(torch.lerp(base, F.normalize(summed, dim=-1), share), dim=-1)
    rest = summed - vectors  # (k, d); without the only sentence the class has its base alone
    mixed = torch.lerp(base.expand_as(rest), F.normalize(rest, dim=-1), share)
    if len(own) == 1:
        mixed = base[None]
    without = F.normalize(mixed, dim=-1)
    turns = 1 - without @ text
    carries = None
    if photos is not None:
        x, y = photos
        mine = y == class_id
        if bool(mine.any()) and not bool(mine.all()):
            seen = bool(classes.seen[class_id] >= 0)
            weight = run.adapter.table.get("zero-shot", (1.0, 1.0))[0 if seen else 1] or 1.0
            apart = x[mine].mean(0) - x[~mine].mean(0)
            carries = (weight * run.adapter.scale * (text - without) @ apart).tolist()
    effects = [
        SentenceEffect(sentences.texts[i], None if carries is None else carries[j], float(turns[j]))
        for j, i in enumerate(own)
    ]
    return sorted(effects, key=lambda e: -(e.turns if e.carries is None else e.carries))


def shared_sentences(sentences: Sentences, one: int, other: int) -> list[SharedPair]:
    """Return the pairs of sentences of two classes that lie nearest, each sentence once."""
    a, b = sentences.of(one), sentences.of(other)
    if not a or not b:
        return []
    cosines = sentences.vectors[a] @ sentences.vectors[b].T
    order = cosines.flatten().argsort(descending=True).tolist()
    used: set[tuple[str, int]] = set()
    pairs: list[SharedPair] = []
    for cell in order:
        i, j = divmod(cell, len(b))
        if ("a", i) in used or ("b", j) in used:
            continue
        used |= {("a", i), ("b", j)}
        value = round(float(cosines[i, j]), 4)
        pairs.append(SharedPair(sentences.texts[a[i]], sentences.texts[b[j]], value))
        if len(pairs) == _SHARED:
            break
    return pairs


def _results(folder: Path) -> Results | None:
    path = folder / "results" / "classification.json"
    try:
        return Results.load(path) if path.is_file() else None
    except UserError:
        return None


def _ours(found: Results) -> MethodResult | None:
    return next((method for method in found.methods if method.group == "ours"), None)


def _accuracy(
    found: Results | None, class_id: int, names: list[str]
) -> dict[str, dict[str, float]]:
    """Return accuracy in percent by test set of ours and of zero-shot CLIP."""
    accuracy: dict[str, dict[str, float]] = {}
    if found is None:
        return accuracy
    for method in found.methods:
        if method.group != "ours" and method.name != "zero-shot template":
            continue
        for test, values in method.details.get("per_class", {}).items():
            for key, told in zip(values, _classes(names, list(values))):
                if told == class_id and values[key] is not None:
                    accuracy.setdefault(test, {})[method.name] = float(values[key])
    return accuracy


def _classes(names: list[str], keys: Sequence[str]) -> list[int | str | None]:
    """Return the class of each key of a test set, such as ``"12 missile"``; of another data set's
    class its name; None where the name repeats and the place in the test set does not tell.

    >>> _classes(["missile", "cat", "missile"], ["0 missile", "1 cat", "2 missile"])
    [0, 1, 2]
    >>> _classes(["missile", "cat", "missile"], ["0 cat", "1 missile", "2 dog"])
    [1, None, 'dog']
    """
    pairs = [key.partition(" ")[::2] for key in keys]
    in_place = all(p.isdecimal() and names[int(p) : int(p) + 1] == [name] for p, name in pairs)
    known = _by_name(names)
    told = [known.get(name, name) for _, name in pairs]
    return [int(p) if in_place and one is None else one for (p, _), one in zip(pairs, told)]


def _confused(run: OpenedRun, class_id: int, found: Results | None) -> list[Confusion]:
    counts: dict[int | str, list[int]] = {}
    ours = _ours(found) if found else None
    details = ours.details if ours else {}
    for test, values in details.get("confusion", {}).items():
        keys = list(details.get("per_class", {}).get(test, {}))
        for true, answered, images in _cells(values, keys, run.names):
            if true is None or answered is None or true == answered:
                continue
            if true == class_id:
                counts.setdefault(answered, [0, 0])[0] += images
            elif answered == class_id:
                counts.setdefault(true, [0, 0])[1] += images
    ranked = sorted(counts, key=lambda other: -sum(counts[other]))[:_CONFUSED]
    if not ranked:
        text = run.classes.text(run.adapter.class_text)
        near = text @ text[class_id]
        near[class_id] = -1
        return [
            Confusion(run.names[i], 0, 0, _shared(run, class_id, i), nearest_text=True)
            for i in near.topk(min(_CONFUSED, len(near) - 1)).indices.tolist()
        ]
    return [
        Confusion(
            other if isinstance(other, str) else run.names[other],
            counts[other][0],
            counts[other][1],
            [] if isinstance(other, str) else _shared(run, class_id, other),
        )
        for other in ranked
    ]


def _cells(
    values: dict[str, Any], keys: Sequence[str], names: list[str]
) -> list[tuple[int | str | None, int | str | None, int]]:
    """Return the confusions of a test set: of the whole matrix where it is kept."""
    matrix = values.get("matrix")
    if matrix and len(keys) == len(matrix):
        told = _classes(names, keys)
        return [
            (told[i], told[j], count)
            for i, row in enumerate(matrix)
            for j, count in enumerate(row)
            if i != j and count
        ]
    known = _by_name(names)
    rows = [(str(a), str(b), int(count)) for a, b, count in values.get("most_confused", [])]
    return [(known.get(a, a), known.get(b, b), count) for a, b, count in rows]


def _by_name(names: list[str]) -> dict[str, int | None]:
    """Return the class that alone has a name; None where several have it."""
    times = Counter(names)
    return {name: i if times[name] == 1 else None for i, name in enumerate(names)}


def _shared(run: OpenedRun, one: int, other: int) -> list[SharedPair]:
    if run.sentences is None or run.sentences.whole:
        return []
    return shared_sentences(run.sentences, one, other)

"""The rows of a table without labels: how each is learned, and what of it is finished.

n images, c classes, d embedding width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ...pipeline.errors import UserError
from ..baselines.base import Fitted
from ..baselines.label_free import RULES, TRANSDUCTIVE, Rule, Transductive
from ..method.adapter import FittedAdapter
from ..method.class_statistics import ClassStatistics
from ..method.problem import ClassSet, ClassText, FewShot
from ..method.recipe import Recipe
from ..method.terms import Gaussian, ZeroShot
from ..method.train import fit
from ..method.unlabelled import LEAST_A_CLASS, UnlabelledFit, fit_unlabelled
from ..run import RunFolder
from .outcomes import Facts, Outcome, load_outcome, predict, save_outcome
from .photo_pool import without
from .protocols import TestSet

# half of what the bank says, half hand-written: no label chooses it, and it is the best untrained
CLASS_TEXT = ClassText("ensemble", 0.5)


class Work:
    """Finished outcomes in a folder, and the adapter of the first seed beside its outcome."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.learned: tuple[FittedAdapter, UnlabelledFit] | None = None
        self._labels_alone: dict[int, tuple[FittedAdapter, float]] = {}
        self._first = ""

    def outcome(
        self, key: str, name: str, train: Callable[[], tuple[Any, float]], tests: list[TestSet]
    ) -> Outcome:
        """Return what a row predicts: as it was kept, or trained now."""
        path = self.folder / f"{key}.safetensors"
        beside = RunFolder(path.with_suffix(".adapter"))
        ours, first = name == "ours", not self._first
        kept = load_outcome(path)
        if ours and first:
            self._first = key
            if kept is not None and not _readable(beside):
                kept = None
        if kept is not None:
            return kept
        predictor, seconds = train()
        if ours and first and self.learned is not None:
            adapter, found = self.learned
            tensors = adapter.tensors() | found.statistics.tensors()
            about = {"kind": "classification", "gaussian": {"weight": found.weight,
                                                            "temperature": 1.0}}  # fmt: skip
            beside.save_weights(tensors | {"class_texts": adapter.text}, about | adapter.config())
        facts = Facts(seconds, predictor.parameters, dict(predictor.chosen))
        outcome = predict(predictor, tests, "cpu", facts)
        save_outcome(path, outcome)
        return outcome

    def first(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and configuration of the adapter of the first seed."""
        return RunFolder((self.folder / self._first).with_suffix(".adapter")).load_weights()

    def labels_alone(
        self, problem: FewShot, recipe: Recipe, seed: int
    ) -> tuple[FittedAdapter, float]:
        """Return the adapter that has learned from the shots alone, trained once a seed."""
        if seed not in self._labels_alone:
            start = time.perf_counter()
            fitted = fit(problem, recipe, seed)
            self._labels_alone = {seed: (fitted, time.perf_counter() - start)}
        return self._labels_alone[seed]


def _readable(folder: RunFolder) -> bool:
    try:
        folder.load_weights()
    except UserError:
        return False
    return True


def rows_of(
    problem: FewShot,
    pool: Tensor,
    recipe: Recipe,
    wanted: list[str],
    semi: bool,
    seed: int,
    work: Work,
) -> Iterator[tuple[str, Callable[[], tuple[Any, float]]]]:
    """Yield the rows of a seed: ours first, each by how it is trained."""

    def ours() -> tuple[Any, float]:
        before = work.labels_alone(problem, recipe, seed)[0] if semi else None
        rest = without(pool, problem.x) if semi else pool
        learned = learn(problem, rest, before, seed)
        work.learned = work.learned or learned
        return learned[0], learned[0].seconds

    yield "ours", ours
    if semi:
        yield "ours, labels alone", lambda: work.labels_alone(problem, recipe, seed)
    yield from _others(problem, pool, wanted, semi, seed)


def learn(
    problem: FewShot, pool: Tensor, before: FittedAdapter | None, seed: int
) -> tuple[FittedAdapter, UnlabelledFit]:
    """Return an adapter that has learned from a pool (n, d), and what decided it.

    Args:
        problem: class texts; the shots where ``before`` was trained on them.
        before: an adapter that learned from labels; without it zero-shot CLIP labels the pool.
    """
    start = time.perf_counter()
    choice = CLASS_TEXT if before is None else before.class_text
    t = problem.classes.text(choice)
    classes = problem.classes
    if before is None:
        recipe = Recipe(name="unlabelled", kind="convex")
        before = FittedAdapter(
            recipe, t, [ZeroShot(problem.scale)], {"zero-shot": (1.0, 1.0)}, problem.scale, choice
        )
        labelled = None
    else:
        labelled = ClassStatistics.of(problem.x, problem.y, len(classes))
    labeller = before

    def label(x: Tensor) -> Tensor:
        return labeller.logits(x, classes)

    found = fit_unlabelled(pool, label, t, labelled=labelled, seed=seed)
    terms, table = list(before.terms), dict(before.table)
    if found.trusted:
        terms.append(Gaussian(found.discriminant))
        table["gaussian"] = (found.weight, 0.0)
    chosen = before.chosen | {
        "explained": round(found.explained, 4),
        "explained without classes": round(found.by_chance, 4),
        "agreement of halves": round(found.agreement, 4),
        "photos a class": round(found.a_class, 2),
        "enough photos": found.enough,
        "trusted": found.trusted,
        "weight of photos": round(found.weight, 4),
    }
    adapter = replace(before, terms=terms, table=table, chosen=chosen)
    adapter.seconds = before.seconds + time.perf_counter() - start
    return adapter, found


def verdict(chosen: Mapping[str, Any]) -> str:
    """Return in one sentence whether the pool is used, and why, from what :func:`learn` notes."""
    if not chosen["enough photos"]:
        found = chosen["photos a class"]
        return (
            f"The photos are too few, and nothing is learned from them: {found:g} a class on"
            f" average, and {LEAST_A_CLASS:g} are needed."
        )
    share = (
        f"one half of the pool explains {chosen['explained']:.0%} of the labels of the other, and"
        f" {chosen['explained without classes']:.0%} where there are no classes"
    )
    if chosen["trusted"]:
        return f"The photos are trusted: {share}."
    return f"The photos are not trusted, and nothing is learned from them: {share}."


def _others(
    problem: FewShot, pool: Tensor, wanted: list[str], semi: bool, seed: int
) -> Iterator[tuple[str, Callable[[], tuple[Any, float]]]]:
    """Yield the rows to compare with."""
    scale = problem.scale
    t = problem.classes.text(CLASS_TEXT)

    def zero_shot(x: Tensor, asked: ClassSet, choice: ClassText = CLASS_TEXT) -> Tensor:
        return scale * x @ asked.text(choice).T

    def template(x: Tensor, asked: ClassSet) -> Tensor:
        return zero_shot(x, asked, ClassText())

    yield "zero-shot", lambda: (Fitted(zero_shot), 0.0)
    yield "zero-shot template", lambda: (Fitted(template), 0.0)
    if wanted == ["none"] or semi:
        return

    def by_rule(rule: Rule) -> tuple[Any, float]:
        start = time.perf_counter()
        classify = rule(pool, t, scale, seed)
        taken = time.perf_counter() - start
        return Fitted(lambda x, _: classify(x), t.numel()), taken

    for name, rule in RULES.items():
        yield name, partial(by_rule, rule)
    for name, assign in TRANSDUCTIVE.items():

        def all_at_once(x: Tensor, asked: ClassSet, assign: Transductive = assign) -> Tensor:
            return assign(x, asked.text(CLASS_TEXT), scale).clamp_min(1e-12).log()

        yield name, partial(lambda rule: (Fitted(rule), 0.0), all_at_once)

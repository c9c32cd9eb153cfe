"""A run without labels, or with some: class texts and a pool of photos that nobody labelled.

``unlabelled/1`` learns from class texts and the pool alone and is tested on all classes; with
``semi`` the shots are used too. n images, c classes, d embedding width.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ... import __version__
from ...pipeline.errors import UserError
from ...pipeline.files import hash_value
from ..method.adapter import FittedAdapter
from ..method.recipe import Recipe
from ..method.unlabelled import UnlabelledFit
from ..results import Results
from .data import ClassificationData
from .draws import Source
from .outcomes import Outcome, say_what_was_reused
from .photo_pool import without
from .protocols import SEMI, UNLABELLED, TestSet
from .table import Row, build_results
from .unlabelled_rows import Work, rows_of, verdict

if TYPE_CHECKING:
    from ..config import Config, EvaluationConfig
    from ..run import RunFolder

# raised when a change of the code changes figures, so that older outcomes are not reused
_VERSION = 1


def train_unlabelled(
    config: Config, source: Source, pool: Tensor, run: RunFolder
) -> tuple[Results, dict[str, Tensor], dict[str, Any]]:
    """Learn from a pool without labels and test where there are test photos.

    Args:
        config: ``data.semi`` says that the shots are used with their labels.
        pool: (n, d), as :func:`.photo_pool.read_pool` returns it.
        run: keeps finished work.

    Returns:
        The table, and the tensors and the description of the first seed's adapter.
    """
    settings = config.evaluation
    if not config.data.semi:
        settings = settings.model_copy(update={"shots": 0})
    work = Work(run.path / "work")
    results, data = _evaluate(source, pool, config.recipe, settings, config.data.semi, work)
    tensors, about = work.first()
    every = range(len(data.texts.names))
    return results, tensors, about | data.described(results.protocol, settings.shots, every)


def evaluate_unlabelled(
    source: Source,
    pool: Tensor,
    recipe: Recipe,
    settings: EvaluationConfig,
    *,
    semi: bool = False,
) -> tuple[Results, tuple[FittedAdapter, UnlabelledFit], ClassificationData]:
    """Return the table, the adapter and the fit of the first seed, and its draw.

    Seeds draw the halves that the rule of trust compares, and the shots if labels are used.

    Args:
        source: of class texts and test photos. pool: (n, d) photos without labels.
        recipe: of the adapter that learns from labels, with ``semi``.
        settings: shots, seeds, baselines (``none`` leaves out the rules of others).
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder))
        results, data = _evaluate(source, pool, recipe, settings, semi, work)
    assert work.learned is not None  # an empty folder has nothing to reuse
    return results, work.learned, data


def _evaluate(
    source: Source,
    pool: Tensor,
    recipe: Recipe,
    settings: EvaluationConfig,
    semi: bool,
    work: Work,
) -> tuple[Results, ClassificationData]:
    """Return the table, and the draw of the first seed; what is finished in ``work`` is reused."""
    protocol = SEMI if semi else UNLABELLED
    draws: list[tuple[ClassificationData, list[TestSet]]] = []
    outcomes: dict[str, list[Outcome]] = {}
    verdicts = []
    given, of_pool = len(pool), ""
    for seed in settings.seeds:
        data = source.draw(settings.shots if semi else 1, seed)
        tests = protocol.test_sets(data)
        if not draws:
            pool = _without_test_photos(pool, tests)
            of_pool = hashlib.sha256(pool.numpy().tobytes()).hexdigest()
        draws.append((data, tests))
        problem = data.few_shot(list(range(len(data.texts.names))))
        decided = [
            _VERSION, __version__, protocol.id, data.hash, of_pool, seed,
            recipe.model_dump(mode="json") if semi else "",
        ]  # fmt: skip
        for name, train in rows_of(problem, pool, recipe, settings.baselines, semi, seed, work):
            outcome = work.outcome(hash_value([*decided, name])[:32], name, train, tests)
            outcomes.setdefault(name, []).append(outcome)
        verdicts.append(verdict(outcomes["ours"][-1].facts.chosen))
    say_what_was_reused(outcomes)
    table = [
        Row(name, "ours" if name.startswith("ours") else "baseline", found, _NOTES.get(name, ""))
        for name, found in outcomes.items()
    ]
    results = build_results(protocol, settings, draws, table, {})
    alike = f" {given - len(pool)} more are test photos and were left out."
    photos = f"{len(pool)} photos without labels.{alike if given > len(pool) else ''}"
    results.notes += [photos, *dict.fromkeys(verdicts)]
    return results, draws[0][0]


def _without_test_photos(pool: Tensor, tests: list[TestSet]) -> Tensor:
    """Return the photos of a pool (n, d) that no table is going to be judged by.

    Raises:
        UserError: there is no other.
    """
    left = pool
    for test in tests:
        left = without(left, torch.from_numpy(test.images.x))
    if len(pool) and not len(left):
        raise UserError(
            f"All {len(pool)} photos without labels are test photos of the data set.",
            "Name others, or --unlabelled train.",
        )
    return left


_NOTES = {
    "zero-shot": "the same class texts",
    "LaFTer's rule": "on cached features; prompts of the image tower are not learned",
    "NoLA's rule": "on cached features; without DINO and without prompts of the image tower",
    "TransCLIP": "transductive: it sees all test photos at once",
}

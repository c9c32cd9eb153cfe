"""Few-shot classification: our method, its controls and every baseline, under one protocol.

The same features, shots and test images for all; each (method, seed) is kept when it is finished.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from ... import __version__
from ...pipeline.errors import UserError
from ...pipeline.files import hash_value
from ...pipeline.progress import bar, step
from ..baselines.base import Predictor
from ..config import EvaluationConfig
from ..method.class_statistics import ClassStatistics
from ..method.gaussian_weight import choose_gaussian_weight
from ..method.problem import ClassText
from ..method.recipe import Recipe
from ..results import Results
from ..run import RunFolder
from .best_names import with_best_names
from .data import ClassificationData, FewShot
from .draws import Source
from .methods import CONTROL_NOTES, Method, methods_of
from .outcomes import (
    Facts,
    Outcome,
    load_outcome,
    predict,
    save_outcome,
    say_what_was_reused,
)
from .protocols import Protocol, TestSet, load_protocol
from .table import Row, build_results

# raised when a change of the code changes figures, so that older outcomes are not reused
_OUTCOME_VERSION = 4


def evaluate_classification(
    source: Source,
    recipe: Recipe,
    settings: EvaluationConfig | None = None,
    *,
    targets: Sequence[Source] = (),
    run: RunFolder | None = None,
    work: Path | None = None,
    device: str = "cpu",
) -> Results:
    """Train and test every method over all seeds.

    Args:
        source: where shots are drawn from.
        recipe: of our method.
        settings: protocol, shots, seeds, controls, baselines.
        targets: sources that are only tested on (``cross-dataset`` and ``domain``).
        run: gets the adapter of the first seed and the learning curves, and keeps finished
            (method, seed) pairs and checkpoints; without it nothing is kept.
        work: where finished pairs are kept instead, to share them between runs.
        device: of the features and all training.

    Returns:
        The table: our method first, then controls and baselines, then published figures.

    Raises:
        UserError: data, protocol and settings do not fit together, or training diverges.
    """
    settings = settings or EvaluationConfig()
    protocol = load_protocol(settings.protocol)
    methods = methods_of(recipe, settings, run)
    outcomes: dict[str, list[Outcome]] = {method.name: [] for method in methods}
    others = [target.to_test() for target in targets]
    draws: list[tuple[ClassificationData, list[TestSet]]] = []
    keys: dict[tuple[str, int], str] = {}
    skipped: dict[str, str] = {}
    with (
        tempfile.TemporaryDirectory() if run is None else nullcontext(run.path / "work") as folder,
        bar() as progress,
    ):
        task = progress.add_task("training", total=len(methods) * len(settings.seeds))
        for seed in settings.seeds:
            data = source.draw(settings.shots, seed)
            if settings.names == "best":
                data = with_best_names(data, protocol.trained_ids(data))
            views = _Views(data, others, protocol, settings, seed, device)
            draws.append((data, views.tests()))
            _leave_out_controls(methods, data, skipped)
            for method in methods:
                progress.update(task, description=f"seed {seed}: {method.name}"[:40].ljust(40))
                key = _key(method, data, others, protocol, settings, seed)
                keys[method.name, seed] = key
                path = (work or Path(folder)) / f"{key}.safetensors"
                made = _finished_or_made(method, views, path, device, run is not None, skipped)
                if made is not None:
                    outcomes[method.name].append(made)
                progress.advance(task)
        if run is not None:
            key = keys[methods[0].name, settings.seeds[0]]
            kept = (work or Path(folder)) / f"{key}.adapter"
            _install_adapter(run, kept, draws[0][0], protocol, settings.names == "best")
    say_what_was_reused(outcomes)
    rows = [
        Row(method.name, method.group, outcomes[method.name], method.note)
        for method in methods
        if method.name not in skipped
    ]
    return build_results(protocol, settings, draws, rows, skipped)


def _leave_out_controls(
    methods: list[Method], data: ClassificationData, skipped: dict[str, str]
) -> None:
    """Say before any training which controls these features cannot have; the others run."""
    if data.texts.waffle is not None:
        return
    for method in methods:
        if method.note == CONTROL_NOTES["waffle"] and method.name not in skipped:
            skipped[method.name] = (
                "the features come without texts of random words: add waffle_text.features (c, d) "
                "to the feature file, or train from a bank"
            )
            step(f"Left out: {method.name}: {skipped[method.name]}.")


class _Unavailable(Exception):
    """A baseline cannot be had on these features; the table says why."""


@dataclass
class _Views:
    """One draw as each method sees it: with its own prompts, or as a control replaces them."""

    data: ClassificationData
    others: Sequence[ClassificationData]
    protocol: Protocol
    settings: EvaluationConfig
    seed: int
    device: str
    fitted: dict[str, tuple[Predictor, float]] = field(default_factory=dict)

    def under(self, control: str) -> ClassificationData:
        """Return the draw with the prompts that a control gives it.

        Raises:
            _Unavailable: the control needs texts that are not there.
        """
        try:
            return replace(self.data, texts=self.data.texts.with_control(control, self.seed))
        except UserError as error:
            raise _Unavailable(str(error)) from error

    def problem(self, control: str) -> FewShot:
        """Return the training problem."""
        data = self.under(control)
        return data.few_shot(self.protocol.trained_ids(data), self.device)

    def tests(self, control: str = "none", new_classes: str = "") -> list[TestSet]:
        """Return what to predict."""
        wanted = new_classes or self.settings.new_classes
        data = self.under(control)
        return self.protocol.test_sets(data, self.others, new_classes=wanted, device=self.device)


def _finished_or_made(
    method: Method, views: _Views, path: Path, device: str, keep: bool, skipped: dict[str, str]
) -> Outcome | None:
    """Return a kept outcome, or make it; None where ``skipped`` says why it cannot be had."""
    if method.name in skipped:
        return None
    outcome = load_outcome(path) if keep else None
    if outcome is None:
        try:
            outcome = _train_and_test(method, views, path, device)
        except _Unavailable as reason:
            skipped[method.name] = str(reason)
            return None
        if keep:
            save_outcome(path, outcome)
    return outcome


def _train_and_test(method: Method, views: _Views, path: Path, device: str) -> Outcome:
    """Train, unless another row trained the same, and predict every test set."""
    if method.identity not in views.fitted:
        problem = views.problem(method.control)
        start = time.perf_counter()
        try:
            predictor = method.train(problem, views.seed, path.with_suffix(".checkpoint"))
        except UserError as error:
            if method.group != "baseline":
                raise
            raise _Unavailable(str(error)) from error
        # one at a time: adapters of a large problem are large
        views.fitted = {method.identity: (predictor, time.perf_counter() - start)}
    predictor, seconds = views.fitted[method.identity]
    tests = views.tests(method.control, method.new_classes)
    facts = Facts(seconds, predictor.parameters, dict(predictor.chosen))
    return predict(predictor, tests, device, facts)


def _key(
    method: Method,
    data: ClassificationData,
    others: Sequence[ClassificationData],
    protocol: Protocol,
    settings: EvaluationConfig,
    seed: int,
) -> str:
    """Return the name of an outcome: everything it depends on."""
    return hash_value(
        [
            _OUTCOME_VERSION, __version__, method.name, method.identity, seed, protocol.id,
            data.hash, [other.hash for other in others], data.shots,
            method.new_classes or settings.new_classes,
        ]
    )[:32]  # fmt: skip


def _install_adapter(
    run: RunFolder,
    kept: Path,
    data: ClassificationData,
    protocol: Protocol,
    renamed: bool = False,
) -> None:
    """Copy the adapter of the first seed into the run, with what it needs to explain itself."""
    tensors, config = RunFolder(kept).load_weights()
    trained = protocol.trained_ids(data)
    choice = ClassText(**config.get("class_text", {}))
    if renamed or choice != ClassText():  # predict has no bank to ask
        classes = data.class_set(range(len(data.texts.names)), trained)
        tensors["class_texts"] = classes.text(choice)
    problem = data.few_shot(trained)
    texts = problem.classes.text(choice)
    # what aape extend needs to add classes without these photos
    tensors |= ClassStatistics.of(problem.x, problem.y, len(trained)).tensors()
    weight, temperature = choose_gaussian_weight(problem.x, problem.y, texts, problem.scale)
    config |= {
        **data.described(protocol.id, data.shots, trained),
        "gaussian": {"weight": weight, "temperature": temperature},
        "class_ids": list(trained),
    }
    run.save_weights(tensors, config)

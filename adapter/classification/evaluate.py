"""Few-shot classification: our method, its controls and every baseline, under one protocol.

The same features, shots and test images for all; each (method, seed) is kept when it is finished.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from ... import __version__
from ...pipeline.errors import UserError
from ...pipeline.files import hash_value
from ...pipeline.progress import bar, step
from ..baselines import Baseline, choose_baselines
from ..baselines.base import Predictor
from ..config import EvaluationConfig
from ..method.adapter import FittedAdapter
from ..method.class_statistics import ClassStatistics
from ..method.gaussian_weight import choose_gaussian_weight
from ..method.problem import ClassText
from ..method.recipe import PROMPT_CONTROLS, Recipe, controlled
from ..method.train import Seeds, fit
from ..results import Results
from ..run import RunFolder
from .best_names import with_best_names
from .data import ClassificationData, FewShot
from .draws import Source
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


@dataclass(frozen=True)
class _Method:
    """One row to be: how it is trained on a draw, and all that decides its outcome."""

    name: str
    group: str
    identity: str
    train: Callable[[FewShot, int, Path], Predictor]
    note: str = ""
    control: str = "none"
    new_classes: str = ""  # other than the settings say


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
    methods = [*_ours(recipe, settings, run), *map(_baseline, choose_baselines(settings.baselines))]
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
                able = method.name not in skipped
                outcome = load_outcome(path) if run is not None and able else None
                if outcome is None and able:
                    try:
                        outcome = _train_and_test(method, views, path, device)
                    except _Unavailable as reason:
                        skipped[method.name] = str(reason)
                    else:
                        if run is not None:
                            save_outcome(path, outcome)
                if outcome is not None:
                    outcomes[method.name].append(outcome)
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
    methods: list[_Method], data: ClassificationData, skipped: dict[str, str]
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


def _train_and_test(method: _Method, views: _Views, path: Path, device: str) -> Outcome:
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


def _ours(recipe: Recipe, settings: EvaluationConfig, run: RunFolder | None) -> list[_Method]:
    """Return our method and the controls that were asked for."""
    methods = []
    for control in ["none", *[name for name in settings.controls if name != "none"]]:
        changed = controlled(recipe, control)
        if control not in ("none", *PROMPT_CONTROLS) and changed == recipe:
            continue  # takes away what this recipe has not
        name = "ours" if recipe.name == "default" else f"ours ({recipe.name})"
        name += f", {control}" if control != "none" else ""

        def train(
            data: FewShot,
            seed: int,
            checkpoint: Path,
            control: str = control,
            changed: Recipe = changed,
            name: str = name,
        ) -> FittedAdapter:
            init = seed if settings.init_seed is None else settings.init_seed
            order = seed if settings.order_seed is None else settings.order_seed

            def log(record: dict[str, float]) -> None:
                if run is not None:
                    run.log(method=name, seed=seed, **record)

            fitted = fit(
                data,
                changed,
                Seeds(init, order),
                checkpoint=checkpoint if run is not None else None,
                on_epoch=log,
            )
            if run is not None and control == "none":
                config = {"kind": "classification", "seed": seed} | fitted.config()
                RunFolder(checkpoint.with_suffix(".adapter")).save_weights(fitted.tensors(), config)
            return fitted

        seen_only = changed.seen.residual or changed.seen.discriminant or changed.kind == "convex"
        note = "trains parameters for seen classes besides those for all" if seen_only else ""
        if control != "none":
            note = CONTROL_NOTES[control]
        identity = hash_value([changed.model_dump(mode="json"), control, settings.init_seed,
                               settings.order_seed])  # fmt: skip
        group = "ours" if control == "none" else "control"
        methods.append(_Method(name, group, identity, train, note, control))
    if load_protocol(settings.protocol).summary == "H" and settings.new_classes == "bank":
        first = methods[0]
        if any(recipe.class_text.shares):
            name, note = f"{first.name}, new classes by name", CONTROL_NOTES["name"]
            methods.insert(1, replace(first, name=name, group="control", note=note,
                                      new_classes="name"))  # fmt: skip
    return methods


CONTROL_NOTES = {
    "name": "new classes have the template alone, as in the paper",
    "shuffled": "each class has the prompts of another class",
    "template": "the hand-written templates instead of prompts",
    "waffle": "the template with random words instead of prompts",
    "untrained": "class texts alone, chosen on the same images; nothing is trained",
    "no-class-text": "the template stands for a class, whatever the bank says",
    "no-shared-map": "no map from texts: new classes stay at zero-shot CLIP",
    "no-own-weights": "seen classes have the shared map alone",
    "no-whitening": "images as CLIP gives them",
    "no-generator": "the head sees no h(x) and nothing is distilled",
    "no-distillation": "λ = 0, and no query",
    "no-query": "distilled, but h(x) is not compared with the class texts",
    "random-prompt": "the target is one random prompt instead of the aggregated ones",
    "mean-prompt": "the target is the mean prompt",
    "mlp-prompt": "the aggregator is an MLP of the mean prompt",
    "no-seen-terms": "no parameters for seen classes: one generator and head for all classes",
}


def _baseline(baseline: Baseline) -> _Method:
    return _Method(
        baseline.name,
        "baseline",
        baseline.name,
        lambda data, seed, checkpoint: baseline.fit(data, seed),
        baseline.note,
    )


def _key(
    method: _Method,
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

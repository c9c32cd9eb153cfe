"""The rows of a classification table, and how each is trained: ours, its controls, baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ...pipeline.files import hash_value
from ..baselines import Baseline, choose_baselines
from ..baselines.base import Predictor
from ..config import EvaluationConfig
from ..method.adapter import FittedAdapter
from ..method.recipe import PROMPT_CONTROLS, Recipe, controlled
from ..method.train import Seeds, fit
from ..run import RunFolder
from .data import FewShot
from .protocols import load_protocol

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

LANGUAGE_NOTES = {CONTROL_NOTES[name] for name in PROMPT_CONTROLS}


@dataclass(frozen=True)
class Method:
    """One row to be: how it is trained on a draw, and all that decides its outcome."""

    name: str
    group: str
    identity: str
    train: Callable[[FewShot, int, Path], Predictor]
    note: str = ""
    control: str = "none"
    new_classes: str = ""  # other than the settings say


def methods_of(recipe: Recipe, settings: EvaluationConfig, run: RunFolder | None) -> list[Method]:
    """Return the rows to be, ours first, then its controls, then baselines.

    Args:
        run: gets the learning curves, and the weights of ours in each (method, seed)'s folder.

    Raises:
        UserError: a baseline is unknown.
    """
    return [*_ours(recipe, settings, run), *map(_baseline, choose_baselines(settings.baselines))]


def _ours(recipe: Recipe, settings: EvaluationConfig, run: RunFolder | None) -> list[Method]:
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
        methods.append(Method(name, group, identity, train, note, control))
    if load_protocol(settings.protocol).summary == "H" and settings.new_classes == "bank":
        first = methods[0]
        if any(recipe.class_text.shares):
            name, note = f"{first.name}, new classes by name", CONTROL_NOTES["name"]
            methods.insert(1, replace(first, name=name, group="control", note=note,
                                      new_classes="name"))  # fmt: skip
    return methods


def _baseline(baseline: Baseline) -> Method:
    return Method(
        baseline.name,
        "baseline",
        baseline.name,
        lambda data, seed, checkpoint: baseline.fit(data, seed),
        baseline.note,
    )

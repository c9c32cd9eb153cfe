"""From predictions to the table: means, H per seed, calibration, confusion, intervals, notes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import EvaluationConfig
from ..metrics.accuracy import confusion_matrix, most_confused, per_class_accuracy
from ..metrics.calibration import expected_calibration_error, reliability
from ..metrics.intervals import paired_bootstrap
from ..metrics.right_and_wrong import pack
from ..published import published_rows
from ..results import MethodResult, Results
from ..shots import in_words
from .data import ClassificationData, LabelledImages
from .examples import examples
from .methods import LANGUAGE_NOTES
from .outcomes import Outcome
from .protocols import Protocol, TestSet

CALIBRATION = "100-ECE"
_FULL_CONFUSION = 200  # classes
SAME_IMAGES = "All seeds have the same training images, so what no seed changes has no ± deviation."
Draws = Sequence[tuple[ClassificationData, list[TestSet]]]


@dataclass(frozen=True)
class Row:
    """One method and its outcomes, one a seed."""

    name: str
    group: str
    outcomes: list[Outcome]
    note: str = ""


def build_results(
    protocol: Protocol,
    settings: EvaluationConfig,
    draws: Draws,
    rows: Sequence[Row],
    skipped: dict[str, str],
) -> Results:
    """Return the table of all methods over all seeds.

    Args:
        protocol: the rule. settings: seeds and bootstrap.
        draws: data and test sets a seed; test images and their order are the same for all.
        rows: ours first. skipped: baselines that cannot be had here, with the reason.
    """
    data = draws[0][0]
    tests = draws[0][1]
    alike = same_images([data for data, _ in draws])
    columns = [test.name for test in tests]
    metrics = [*columns, *([protocol.summary] if protocol.summary else []), CALIBRATION]
    results = Results(
        task="classification",
        protocol=protocol.id,
        dataset=data.dataset,
        encoder=data.encoder,
        metrics=metrics,
        methods=[_method(row, protocol, settings, draws) for row in rows],
        best=protocol.best,
        title=f"{data.dataset}, {protocol.id}, {in_words(settings.shots)}",
        units=dict.fromkeys(metrics, "%"),
        notes=_notes(protocol, settings, draws, skipped, alike) + _unread_descriptions(rows),
    )
    if settings.resamples:
        results.intervals = _intervals(protocol, settings, draws, rows)
    results.methods += published_rows(data.dataset, data.encoder, protocol.name, settings.shots)
    results.details = {
        "seeds": settings.seeds,
        "shots": settings.shots,
        "trained_classes": len(protocol.trained_ids(data)),
        "images_a_class": _images_a_class(protocol, data),
        "classes": {test.name: len(test.classes) for test in tests},
        "test_images": {test.name: len(test.images) for test in tests},
        "same_images": alike,
        "logit_scale": data.logit_scale,
        "zero_shot_check": _prompt_check(results),
        "labels_sha256": {
            test.name: hashlib.sha256(test.images.y.astype("<i8").tobytes()).hexdigest()
            for test in tests
        },
        "images_sha256": {test.name: _identity(test.images) for test in tests},
    }
    results.samples = examples(rows[0].outcomes[0], tests)
    if results.samples:
        results.details["samples"] = f"{rows[0].name}, seed {settings.seeds[0]}"
    return results


def _identity(images: LabelledImages) -> str:
    """Return which images these are, in their order: by their files, else by their features.

    >>> x, y = np.zeros((1, 2), np.float32), np.zeros(1, np.int64)
    >>> _identity(LabelledImages(x, y, contents=("ab",)))[:12]
    'photos:fb8e2'
    >>> _identity(LabelledImages(x, y))[:14]
    'features:af557'
    """
    if images.contents:
        return f"photos:{hashlib.sha256(''.join(images.contents).encode()).hexdigest()}"
    return f"features:{hashlib.sha256(images.x.astype('<f4').tobytes()).hexdigest()}"


def _images_a_class(protocol: Protocol, data: ClassificationData) -> float:
    """Return the mean number of training images of a trained class."""
    trained = protocol.trained_ids(data)
    return len(data.train.of(trained)) / len(trained)


def _method(row: Row, protocol: Protocol, settings: EvaluationConfig, draws: Draws) -> MethodResult:
    seeds, errors = [], []
    for seed, outcome, (_, tests) in zip(settings.seeds, row.outcomes, draws):
        right = np.concatenate(outcome.correct(tests))
        errors.append(expected_calibration_error(np.concatenate(outcome.confidence), right))
        values = protocol.row(outcome.accuracies(tests))
        seeds.append({"seed": seed, **values, CALIBRATION: 100 - errors[-1]})
    first = row.outcomes[0].facts
    return MethodResult(
        name=row.name,
        seeds=seeds,
        group=row.group,
        note=row.note,
        parameters=first.parameters,
        seconds=float(np.mean([outcome.facts.seconds for outcome in row.outcomes])),
        details={
            "ece": errors,
            "chosen": [outcome.facts.chosen for outcome in row.outcomes],
            "per_class": _per_class(row, draws),
            "confusion": _confusion(row, draws),
            "reliability": _reliability(row, draws),
            "right": _right(row, draws),
        }
        | _share_of_seen(protocol, row, draws),
    )


def _per_class(row: Row, draws: Draws) -> dict[str, dict[str, float | None]]:
    """Return the mean accuracy over seeds of each class, a test set."""
    found: dict[str, dict[str, float | None]] = {}
    for i, test in enumerate(draws[0][1]):
        c = len(test.classes)
        table = np.stack(
            [
                per_class_accuracy(outcome.predicted[i], tests[i].images.y, c)
                for outcome, (_, tests) in zip(row.outcomes, draws)
            ]
        ).mean(0)
        found[test.name] = {
            f"{j} {test.names[j]}": round(float(table[j]), 3)
            for j in range(c)
            if not np.isnan(table[j])
        }
    return found


def _confusion(row: Row, draws: Draws) -> dict[str, Any]:
    """Return the most frequent confusions a test set over all seeds; for ours the whole matrix."""
    found: dict[str, Any] = {}
    for i, test in enumerate(draws[0][1]):
        c = len(test.classes)
        matrix = sum(
            confusion_matrix(outcome.predicted[i], tests[i].images.y, c)
            for outcome, (_, tests) in zip(row.outcomes, draws)
        )
        assert isinstance(matrix, np.ndarray)
        found[test.name] = {
            "most_confused": [
                [test.names[a], test.names[b], count] for a, b, count in most_confused(matrix)
            ]
        }
        if row.group == "ours" and c <= _FULL_CONFUSION:
            found[test.name]["matrix"] = matrix.tolist()
    return found


def _reliability(row: Row, draws: Draws) -> dict[str, dict[str, list]]:
    """Return the reliability diagram over all test sets and seeds, after calibration and before."""
    pairs = list(zip(row.outcomes, draws))
    right = np.concatenate([part for o, (_, tests) in pairs for part in o.correct(tests)])
    after = np.concatenate([part for outcome in row.outcomes for part in outcome.confidence])
    found = {"after": reliability(after, right)}
    if all(outcome.uncalibrated for outcome in row.outcomes):
        before = np.concatenate([part for o in row.outcomes for part in o.uncalibrated])
        ece = expected_calibration_error(before, right)
        found["before"] = reliability(before, right) | {"ece": [round(ece, 4)]}
    return found


def _right(row: Row, draws: Draws) -> dict[str, list[str]]:
    """Return right and wrong of every image, one text a seed and test set, to pair runs by."""
    found: dict[str, list[str]] = {}
    for outcome, (_, tests) in zip(row.outcomes, draws):
        for test, right in zip(tests, outcome.correct(tests)):
            found.setdefault(test.name, []).append(pack(right))
    return found


def _share_of_seen(protocol: Protocol, row: Row, draws: Draws) -> dict[str, Any]:
    """Return, for ``generalized``, how many images of each half were called a seen class."""
    if protocol.name != "generalized":
        return {}
    shares: dict[str, list[float]] = {}
    for outcome, (_, tests) in zip(row.outcomes, draws):
        for predicted, test in zip(outcome.predicted, tests):
            seen = test.classes.seen.cpu().numpy() >= 0
            shares.setdefault(test.name, []).append(float(seen[predicted].mean() * 100))
    return {"called_seen": shares}


def _intervals(
    protocol: Protocol, settings: EvaluationConfig, draws: Draws, rows: Sequence[Row]
) -> dict[str, dict[str, list[float]]]:
    """Return ours minus every other row: 95 % of the paired bootstrap, a column."""
    tests = draws[0][1]

    def right(row: Row) -> list[np.ndarray]:
        per_seed = [outcome.correct(t) for outcome, (_, t) in zip(row.outcomes, draws)]
        return [np.stack([seed[i] for seed in per_seed]) for i in range(len(tests))]

    ours, found = right(rows[0]), {}
    for row in rows[1:]:
        theirs = right(row)
        cells = {}
        for i, test in enumerate(tests):
            pair = paired_bootstrap(
                [ours[i]], [theirs[i]], lambda v: v[0], resamples=settings.resamples
            )
            cells[test.name] = [round(value, 3) for value in pair]
        if protocol.summary:
            pair = paired_bootstrap(ours, theirs, protocol.summarise, resamples=settings.resamples)
            cells[protocol.summary] = [round(value, 3) for value in pair]
        found[f"{rows[0].name} - {row.name}"] = cells
    return found


def _notes(
    protocol: Protocol,
    settings: EvaluationConfig,
    draws: Draws,
    skipped: dict[str, str],
    alike: bool,
) -> list[str]:
    data, tests = draws[0]
    counts = ", ".join(
        f"{'' if test.name == 'accuracy' else f'{test.name} '}{len(test.images):,}"
        for test in tests
    )
    notes = [f"{protocol.id}: {protocol.rule}.", f"Encoder: {data.encoder}.", *data.notes]
    notes.append(f"Test images: {counts}.")
    if alike:
        notes.append(SAME_IMAGES)
    if protocol.trains_on == "base" or protocol.summary == "mean":
        notes.append(
            "New classes have the bank's prompts where a method reads them (--new-classes bank)."
            if settings.new_classes == "bank"
            else "New classes have the template alone (--new-classes name), as in the paper."
        )
    if not len(data.val):
        notes.append(
            "No validation images: settings come from folds of the shots or are fixed by rule."
        )
    notes += [f"{name} is left out: {reason}" for name, reason in skipped.items()]
    return notes


def _unread_descriptions(rows: Sequence[Row]) -> list[str]:
    """Say why language controls equal ours, where the training photos chose no descriptions."""
    ours = [outcome.facts.chosen for outcome in rows[0].outcomes]
    chosen = [facts["class text"] for facts in ours if "class text" in facts]
    if not any(row.note in LANGUAGE_NOTES for row in rows):
        return []
    without = sum(not one["share"] for one in chosen)
    if not without:
        return []
    whole = "every seed" if without == len(chosen) else f"{without} of {len(chosen)} seeds"
    return [
        f"On {whole} the training photos gave the descriptions no share of the class texts "
        "(β = 0): there language is not at work, and controls have nothing to take away."
    ]


def same_images(drawn: Sequence[ClassificationData]) -> bool:
    """Say whether several seeds drew the same training images, as from a fixed draw or all."""
    return len(drawn) > 1 and all(
        np.array_equal(_sorted(data.train), _sorted(drawn[0].train)) for data in drawn[1:]
    )


def _sorted(images: LabelledImages) -> np.ndarray:
    """Return features and labels (n, d + 1) in an order that is the same for any draw of them."""
    rows = np.concatenate([images.x, images.y[:, None].astype(np.float32)], axis=1)
    return rows[np.lexsort(rows.T[::-1])]


def _prompt_check(results: Results) -> dict[str, float]:
    """Return mean of prompts minus template on seen classes: do the prompts carry knowledge?"""
    names = {method.name for method in results.methods}
    if not {"mean of prompts", "zero-shot template"} <= names:
        return {}
    column = results.metrics[0]
    gain = results.method("mean of prompts").mean(column) - results.method(
        "zero-shot template"
    ).mean(column)
    return {f"mean of prompts - template ({column})": round(gain, 3)}

"""What one method did with one seed, kept on disk so that no finished work is done twice.

n test images over all test sets of the protocol, in order.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...pipeline.errors import UserError
from ...pipeline.progress import step
from ...pipeline.store import finished, write_tensors
from ..baselines.base import Predictor
from ..method.pieces import pieces
from ..method.problem import ClassSet
from ..metrics.accuracy import accuracy
from .protocols import TestSet


@dataclass
class Outcome:
    """Predictions of a method on every test set, and what it took.

    Attributes:
        predicted: one array of positions a test set. confidence: of those predictions, in [0, 1].
        facts: seconds, parameters and chosen settings, as JSON.
        uncalibrated: confidence before the chosen temperatures, where a method chose any.
        reused: it was read, not computed.
    """

    predicted: list[np.ndarray]
    confidence: list[np.ndarray]
    facts: Facts
    reused: bool = False
    uncalibrated: list[np.ndarray] = field(default_factory=list)

    def correct(self, tests: list[TestSet]) -> list[np.ndarray]:
        """Return right and wrong a test set."""
        return [p == test.images.y for p, test in zip(self.predicted, tests)]

    def accuracies(self, tests: list[TestSet]) -> dict[str, float]:
        """Return the accuracy in percent a test set."""
        return {test.name: accuracy(p, test.images.y) for p, test in zip(self.predicted, tests)}


@dataclass
class Facts:
    """What a method took and chose."""

    seconds: float
    parameters: int
    chosen: dict[str, Any] = field(default_factory=dict)


@torch.no_grad()
def predict(predictor: Predictor, tests: list[TestSet], device: str, facts: Facts) -> Outcome:
    """Predict every test set."""
    predicted, confidence, uncalibrated = [], [], []
    for test in tests:
        images = test.images
        x = images.before if getattr(predictor, "reads", "x") == "before" else images.x
        if x is None:
            raise UserError(f"{test.name} has no features before the projection.")
        temperature = chosen_temperature(facts.chosen, test.classes)
        best, sure, raw = [], [], []
        for rows in pieces(torch.from_numpy(x), len(test.classes)):
            logits = predictor.logits(rows.to(device), test.classes)
            top = F.softmax(logits, -1).max(-1)
            best.append(top.indices.cpu().numpy().astype(np.int32))
            sure.append(top.values.cpu().numpy().astype(np.float32))
            if temperature:
                of_raw = F.softmax(logits / temperature, -1).max(-1).values
                raw.append(of_raw.cpu().numpy().astype(np.float32))
        predicted.append(np.concatenate(best))
        confidence.append(np.concatenate(sure))
        if raw:
            uncalibrated.append(np.concatenate(raw))
    if len(uncalibrated) < len(tests):  # a figure over some of the test sets would mislead
        uncalibrated = []
    return Outcome(predicted, confidence, facts, uncalibrated=uncalibrated)


def chosen_temperature(chosen: dict[str, Any], classes: ClassSet) -> float | None:
    """Return the factor that training gave all logits; None where two mix, or none was chosen.

    Seen and new classes have one each, so that the logits of both at once have no single one.
    """
    seen = (classes.seen >= 0).cpu()
    if bool(seen.any()) and not bool(seen.all()):
        return None
    part = chosen.get("seen" if bool(seen.all()) else "new")
    value = part.get("temperature") if isinstance(part, dict) else None
    return float(value) if value else None


def save_outcome(path: Path, outcome: Outcome) -> None:
    """Write an outcome, whole or not at all."""
    tensors = {}
    for i, (predicted, confidence) in enumerate(zip(outcome.predicted, outcome.confidence)):
        tensors |= {f"{i}.predicted": predicted, f"{i}.confidence": confidence}
    tensors |= {f"{i}.uncalibrated": raw for i, raw in enumerate(outcome.uncalibrated)}
    write_tensors(path, tensors, {"facts": json.dumps(asdict(outcome.facts))})


def load_outcome(path: Path) -> Outcome | None:
    """Read an outcome; ``None`` if there is none or the file is damaged."""
    found = finished(path, "np")
    if found is None:
        return None
    tensors, notes = found
    facts = Facts(**json.loads(notes["facts"]))
    sets = range(sum(name.endswith(".predicted") for name in tensors))
    predicted = [tensors[f"{i}.predicted"] for i in sets]
    confidence = [tensors[f"{i}.confidence"] for i in sets]
    kept = [name for i in sets if (name := f"{i}.uncalibrated") in tensors]
    uncalibrated = [tensors[name] for name in kept]
    return Outcome(predicted, confidence, facts, reused=True, uncalibrated=uncalibrated)


def say_what_was_reused(outcomes: dict[str, list[Outcome]]) -> None:
    """Say how many of the outcomes of each method were read, if any were."""
    flat = [outcome for group in outcomes.values() for outcome in group]
    reused = sum(outcome.reused for outcome in flat)
    if reused:
        step(f"Reused {reused} of {len(flat)} finished trainings (same data, recipe and seeds).")

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

from ...pipeline.store import finished, write_tensors
from ..baselines.base import Predictor
from ..metrics.accuracy import accuracy
from .protocols import TestSet


@dataclass
class Outcome:
    """Predictions of a method on every test set, and what it took.

    Attributes:
        predicted: one array of positions a test set. confidence: of those predictions, in [0, 1].
        before: confidence with the temperature of the encoder instead of the chosen one, a test
            set; empty where nothing chose one, or seen and new classes stand side by side.
        facts: seconds, parameters and chosen settings, as JSON.
        reused: it was read, not computed.
    """

    predicted: list[np.ndarray]
    confidence: list[np.ndarray]
    facts: Facts
    reused: bool = False
    before: list[np.ndarray] = field(default_factory=list)

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
    predicted, confidence, before = [], [], []
    factors = getattr(predictor, "calibration", None)
    for test in tests:
        logits = predictor.logits(torch.from_numpy(test.images.x).to(device), test.classes)
        top = F.softmax(logits, -1).max(-1)
        predicted.append(top.indices.cpu().numpy().astype(np.int32))
        confidence.append(top.values.cpu().numpy().astype(np.float32))
        seen = test.classes.seen >= 0
        if factors is not None and (bool(seen.all()) or not bool(seen.any())):
            factor = factors[0] if bool(seen.all()) else factors[1]
            raw = F.softmax(logits / factor, -1).amax(-1)
            before.append(raw.cpu().numpy().astype(np.float32))
    return Outcome(predicted, confidence, facts, before=before if len(before) == len(tests) else [])


def save_outcome(path: Path, outcome: Outcome) -> None:
    """Write an outcome, whole or not at all."""
    tensors = {}
    for i, (predicted, confidence) in enumerate(zip(outcome.predicted, outcome.confidence)):
        tensors |= {f"{i}.predicted": predicted, f"{i}.confidence": confidence}
    tensors |= {f"{i}.before": before for i, before in enumerate(outcome.before)}
    write_tensors(path, tensors, {"facts": json.dumps(asdict(outcome.facts))})


def load_outcome(path: Path) -> Outcome | None:
    """Read an outcome; ``None`` if there is none or the file is damaged."""
    found = finished(path, "np")
    if found is None:
        return None
    tensors, notes = found
    facts = Facts(**json.loads(notes["facts"]))
    sets = range(sum(name.endswith(".predicted") for name in tensors))
    before = [tensors[f"{i}.before"] for i in sets if f"{i}.before" in tensors]
    predicted = [tensors[f"{i}.predicted"] for i in sets]
    confidence = [tensors[f"{i}.confidence"] for i in sets]
    return Outcome(predicted, confidence, facts, reused=True, before=before)

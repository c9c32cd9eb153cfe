"""Few-shot class-incremental learning: the classes of a data set arrive in ten sessions.

``incremental/1``: classes in the order of the data set, ten sessions of equal size, the same shots
a class in all of them. After each session all classes seen so far are told apart. A method keeps
no photos of earlier sessions, unless its name says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...pipeline.errors import UserError
from ..baselines.base import Fitted, Predictor
from ..extend import gaussian_adapter
from ..method.class_statistics import ClassStatistics
from ..method.class_text import choose_class_text
from ..method.gaussian_weight import choose_gaussian_weight
from ..method.pieces import pieces
from ..method.problem import ClassSet
from ..method.recipe import Recipe
from ..method.train import fit
from ..metrics.accuracy import harmonic_mean
from ..results import MethodResult, Results
from .data import ClassificationData
from .draws import Source
from .protocols import INCREMENTAL
from .table import SAME_IMAGES, same_images

if TYPE_CHECKING:
    from ..config import EvaluationConfig

SESSIONS = 10
VERSION = 1


def sessions_of(classes: int, count: int = SESSIONS) -> list[list[int]]:
    """Return the class ids of each session, as equal as can be.

    Raises:
        UserError: there are fewer than two classes a session.

    Example:
        >>> [len(part) for part in sessions_of(23)]
        [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]
    """
    if classes < 2 * count:
        raise UserError(
            f"Protocol incremental has {count} sessions of at least two classes; there are"
            f" {classes} classes.",
            "Choose the protocol fewshot.",
        )
    return [part.tolist() for part in np.array_split(np.arange(classes), count)]


class Gaussians:
    """Zero-shot CLIP and Gaussian classes that grow; text and weights are chosen in session one."""

    def __init__(self, data: ClassificationData, recipe: Recipe) -> None:
        self.data, self.recipe = data, recipe
        self.statistics: ClassStatistics | None = None

    def learn(self, upto: list[int], session: list[int]) -> Predictor:
        """Add the classes of a session; of ``upto`` only texts and statistics are used."""
        problem = self.data.few_shot(session)
        found = ClassStatistics.of(problem.x, problem.y, len(session))
        if self.statistics is None:
            self.choice, _ = choose_class_text(problem, self.recipe.class_text)
            t = problem.classes.text(self.choice)
            self.weights = choose_gaussian_weight(problem.x, problem.y, t, problem.scale)
            self.statistics = found
        else:
            self.statistics = self.statistics.with_classes(found)
        t = self.data.class_set(upto, seen=upto).text(self.choice)
        self.adapter = gaussian_adapter(
            self.statistics, t, self.data.logit_scale, self.choice, *self.weights
        )
        return self.adapter


def evaluate_incremental(
    source: Source, recipe: Recipe, settings: EvaluationConfig
) -> tuple[Results, dict[str, torch.Tensor], dict[str, Any]]:
    """Return the table, and tensors and description of the first seed's last adapter."""
    names: dict[str, list[dict[str, float]]] = {}
    details: dict[str, list[Any]] = {}
    times: dict[str, list[float]] = {}
    kept: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None
    drawn: list[ClassificationData] = []
    for seed in settings.seeds:
        data = source.draw(settings.shots, seed)
        drawn.append(data)
        parts = sessions_of(len(data.texts.names))
        ours = Gaussians(data, recipe)
        learners: dict[str, Callable[[list[int], list[int]], Predictor]] = {"ours": ours.learn}
        learners |= _others(data, recipe, settings, seed, ours)
        for name, learn in learners.items():
            start = time.perf_counter()
            curve = _sessions(data, parts, learn)
            times.setdefault(name, []).append(time.perf_counter() - start)
            names.setdefault(name, []).append({"seed": seed} | _summary(curve))
            details.setdefault(name, []).append(curve)
        if kept is None:
            kept = _describe(data, ours, settings)
    assert kept is not None
    data, alike = drawn[-1], same_images(drawn)
    columns = [*[str(i + 1) for i in range(SESSIONS)], *_SUMMARY]
    results = Results(
        task="classification",
        protocol=f"{INCREMENTAL}/{VERSION}",
        dataset=data.dataset,
        encoder=data.encoder,
        metrics=columns,
        methods=[
            MethodResult(
                name, rows, "ours" if name == "ours" else "baseline", _NOTES.get(name, ""),
                seconds=float(np.mean(times[name])), details={"sessions": details[name]},
            )
            for name, rows in names.items()
        ],
        best="average",
        title=f"{data.dataset}, {INCREMENTAL}/{VERSION}, {settings.shots} shots",
        units=dict.fromkeys(columns, "%"),
        notes=[
            f"{INCREMENTAL}/{VERSION}: {SESSIONS} sessions of equal size in the order of the "
            "classes; after each, all classes so far are told apart.",
            "average: of the ten; last: all classes; base, novel: classes of the first session and"
            " of the others, after the last, among all; H: their harmonic mean; kept: last as a"
            " share of the first.",
            f"Encoder: {data.encoder}.",
            *data.notes,
            *[SAME_IMAGES] * alike,
        ],
        details={"same_images": alike},
    )  # fmt: skip
    return results, *kept


_SUMMARY = ("average", "last", "base", "novel", "H", "kept")
_NOTES = {
    "ours": "keeps counts, means and one scatter, no photos",
    "zero-shot": "the class texts of ours",
    "nearest class mean": "means of the shots",
    "default, all photos": "trained from nothing in each session, keeps all photos",
}


def _sessions(
    data: ClassificationData,
    parts: list[list[int]],
    learn: Callable[[list[int], list[int]], Predictor],
) -> list[dict[str, float]]:
    """Return the accuracies in percent after each session: all, classes before it, its own."""
    curve, upto = [], []
    for session in parts:
        upto = [*upto, *session]
        predictor = learn(upto, session)
        images = data.test.of(upto)
        classes = data.class_set(upto, seen=upto)
        rows = pieces(torch.from_numpy(images.x), len(classes))
        found = torch.cat([predictor.logits(x, classes).argmax(1) for x in rows]).numpy()
        right = found == images.y
        old = images.y < len(upto) - len(session)
        base = images.y < len(parts[0])
        point = {"all": right, "old": right[old], "new": right[~old]}
        point |= {"base": right[base], "novel": right[~base]}
        curve.append({k: float(v.mean() * 100) for k, v in point.items() if len(v)})
    return curve


def _summary(curve: list[dict[str, float]]) -> dict[str, float]:
    """Return the columns of the table."""
    accuracy = [point["all"] for point in curve]
    last = curve[-1]
    row = {str(i + 1): value for i, value in enumerate(accuracy)}
    return row | {
        "average": float(np.mean(accuracy)),
        "last": accuracy[-1],
        "base": last["base"],
        "novel": last["novel"],
        "H": harmonic_mean(last["base"], last["novel"]),
        "kept": 100 * accuracy[-1] / max(accuracy[0], 1e-9),
    }


def _others(
    data: ClassificationData, recipe: Recipe, settings: EvaluationConfig, seed: int, ours: Gaussians
) -> dict[str, Callable[[list[int], list[int]], Predictor]]:
    """Return what to compare with; ``ours`` has been trained when these are asked."""

    def zero_shot(upto: list[int], session: list[int]) -> Predictor:
        def logits(x: torch.Tensor, classes: ClassSet) -> torch.Tensor:
            return data.logit_scale * x @ classes.text(ours.choice).T

        return Fitted(logits)

    def nearest_mean(upto: list[int], session: list[int]) -> Predictor:
        problem = data.few_shot(upto)
        mean = ClassStatistics.of(problem.x, problem.y, len(upto)).mean.float()
        unit = torch.nn.functional.normalize(mean, dim=-1)
        return Fitted(lambda x, classes: data.logit_scale * x @ unit.T)

    def everything(upto: list[int], session: list[int]) -> Predictor:
        return fit(data.few_shot(upto), recipe, seed)

    rows: dict[str, Callable[[list[int], list[int]], Predictor]] = {
        "zero-shot": zero_shot,
        "nearest class mean": nearest_mean,
    }
    if settings.baselines != ["none"]:
        rows["default, all photos"] = everything
    return rows


def _describe(
    data: ClassificationData, ours: Gaussians, settings: EvaluationConfig
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    assert ours.statistics is not None
    adapter, every = ours.adapter, range(len(data.texts.names))
    weight, temperature = ours.weights
    tensors = adapter.tensors() | ours.statistics.tensors() | {"class_texts": adapter.text}
    about = {"kind": "classification", "seed": settings.seeds[0]} | adapter.config()
    about |= data.described(f"{INCREMENTAL}/{VERSION}", settings.shots, every)
    return tensors, about | {"gaussian": {"weight": weight, "temperature": temperature}}

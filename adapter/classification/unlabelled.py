"""A run without labels, or with some: class texts and a pool of photos that nobody labelled.

``unlabelled/1`` learns from class texts and the pool alone and is tested on all classes; with
``semi`` the shots are used too. n images, c classes, d embedding width.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.errors import UserError
from ...pipeline.files import exclusive, hash_file
from ...pipeline.progress import step
from ..baselines.base import Fitted
from ..baselines.label_free import RULES, transclip
from ..finish import finish_run
from ..method.adapter import FittedAdapter
from ..method.class_statistics import ClassStatistics
from ..method.problem import ClassSet, ClassText, FewShot
from ..method.recipe import Recipe
from ..method.terms import Gaussian, ZeroShot
from ..method.train import fit
from ..method.unlabelled import UnlabelledFit, fit_unlabelled
from ..results import Results
from ..run import RunFolder
from .bank_source import BankSource
from .data import ClassificationData
from .draws import Source
from .feature_file import FileSource, read_features
from .outcomes import Facts, Outcome, predict
from .protocols import SEMI, UNLABELLED, TestSet
from .run import open_source, templates_of
from .table import Row, build_results

if TYPE_CHECKING:
    from ...pipeline.encoders.base import Encoder
    from ..config import Config, EvaluationConfig

# half of what the bank says, half hand-written: no label chooses it, and it is the best untrained
CLASS_TEXT = ClassText("ensemble", 0.5)
POOL_OF_TRAINING = "train"


def run_unlabelled(config: Config, out: str | Path) -> Results:
    """Learn from a pool without labels, test where there are test photos, write the run folder.

    Args:
        config: ``data.unlabelled`` is a folder, a file of features or ``train``; ``data.semi``
            says that the shots are used with their labels.
        out: the run folder.

    Raises:
        UserError: something named in the configuration is absent or does not fit.
    """
    run = RunFolder(out)
    source, encoder = open_source(config)
    pool = read_pool(config.data.unlabelled, source, encoder)
    settings = config.evaluation
    if not config.data.semi:
        settings = settings.model_copy(update={"shots": 0})
    with exclusive(run.path / "run", "training in"):
        run.start(config, ["classification"])
        results, fitted, data = evaluate_unlabelled(
            source, pool, config.recipe, settings, semi=config.data.semi
        )
        adapter, found = fitted
        about = {"kind": "classification", "seed": settings.seeds[0]} | adapter.config()
        tensors = adapter.tensors() | found.statistics.tensors() | {"class_texts": adapter.text}
        about |= {
            "dataset": data.dataset,
            "encoder": data.encoder,
            "protocol": results.protocol,
            "shots": settings.shots,
            "class_names": data.texts.names,
            "all_class_names": data.texts.names,
            "gaussian": {"weight": found.weight, "temperature": 1.0},
            "bank": config.data.bank,
            **templates_of(source),
        }
        if config.data.bank:
            about["bank_sha256"] = hash_file(config.data.bank)
        run.save_weights(tensors, about)
        run.save_results(results)
        finish_run(run)
    step(f"Run folder: {run.path}")
    return results


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
    protocol = SEMI if semi else UNLABELLED
    draws: list[tuple[ClassificationData, list[TestSet]]] = []
    outcomes: dict[str, list[Outcome]] = {}
    first: tuple[FittedAdapter, UnlabelledFit] | None = None
    verdicts = []
    for seed in settings.seeds:
        data = source.draw(settings.shots if semi else 1, seed)
        tests = protocol.test_sets(data)
        draws.append((data, tests))
        problem = data.few_shot(list(range(len(data.texts.names))))
        start = time.perf_counter()
        labels_alone = fit(problem, recipe, seed) if semi else None
        seconds = time.perf_counter() - start
        rest = without(pool, problem.x) if semi else pool
        adapter, found = learn(problem, rest, labels_alone, seed)
        first = first or (adapter, found)
        verdicts.append(verdict(found))
        rows: dict[str, tuple[Any, float]] = {"ours": (adapter, adapter.seconds)}
        if labels_alone is not None:
            rows["ours, labels alone"] = (labels_alone, seconds)
        rows |= _others(problem, pool, settings.baselines, semi, seed)
        for name, (predictor, took) in rows.items():
            facts = Facts(took, predictor.parameters, dict(predictor.chosen))
            outcomes.setdefault(name, []).append(predict(predictor, tests, "cpu", facts))
    assert first is not None
    table = [
        Row(name, "ours" if name.startswith("ours") else "baseline", found, _NOTES.get(name, ""))
        for name, found in outcomes.items()
    ]
    results = build_results(protocol, settings, draws, table, {})
    results.notes += [f"{len(pool)} photos without labels.", *dict.fromkeys(verdicts)]
    return results, first, draws[0][0]


_NOTES = {
    "zero-shot": "the same class texts",
    "LaFTer's rule": "on cached features; prompts of the image tower are not learned",
    "NoLA's rule": "on cached features; without DINO and without prompts of the image tower",
    "TransCLIP": "transductive: it sees all test photos at once",
}


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
        "trusted": found.trusted,
        "weight of photos": round(found.weight, 4),
    }
    adapter = replace(before, terms=terms, table=table, chosen=chosen)
    adapter.seconds = before.seconds + time.perf_counter() - start
    return adapter, found


def verdict(found: UnlabelledFit) -> str:
    """Return in one sentence whether the pool is used, and why."""
    share = (
        f"one half of the pool explains {found.explained:.0%} of the labels of the other, and"
        f" {found.by_chance:.0%} where there are no classes"
    )
    if found.trusted:
        return f"The photos are trusted: {share}."
    return f"The photos are not trusted, and nothing is learned from them: {share}."


def read_pool(name: str, source: Source, encoder: Encoder | None) -> Tensor:
    """Return the features (n, d) of a pool: a folder, a file of features, or ``train``.

    Raises:
        UserError: there is nothing there, or its features do not fit the class texts.
    """
    if name == POOL_OF_TRAINING:
        return torch.from_numpy(_training_photos(source))
    path = Path(name)
    if path.suffix == ".safetensors":
        tensors, _ = read_features(path)
        key = next((k for k in ("unlabelled.features", "features") if k in tensors), "")
        if not key:
            raise UserError(
                f"{path} has no tensor 'unlabelled.features' (it has {', '.join(sorted(tensors))})."
            )
        x = torch.from_numpy(tensors[key].astype(np.float32))
        if x.ndim != 2 or not torch.isfinite(x).all():
            raise UserError(f"{path}: {key} is no table of finite values, photos by width.")
        _check_width(path, x, source)
        return F.normalize(x, dim=-1)
    if encoder is None or not isinstance(source, BankSource):
        raise UserError(
            f"A folder of photos ({path}) needs an encoder, and the source is a file of features.",
            "Use --bank, or name a file of features as the pool.",
        )
    from ...pipeline.datasets.images import list_images
    from ...pipeline.embed.images import image_features

    if not path.is_dir():
        raise UserError(f"There is no folder of photos {path}.")
    return torch.from_numpy(image_features(encoder, list_images(path)).x)


def _training_photos(source: Source) -> np.ndarray:
    if isinstance(source, BankSource):
        return source.features(source.images.items("train")).x
    if isinstance(source, FileSource):
        fixed = [k for k in source.tensors if k.startswith("train") and k.endswith(".features")]
        largest = max(fixed, key=lambda k: len(source.tensors[k]), default="train.features")
        return source.split(largest.removesuffix(".features")).x
    raise UserError("These data have no training photos to use as a pool.")


def _check_width(path: Path, x: Tensor, source: Source) -> None:
    if isinstance(source, (FileSource, BankSource)):
        width = source.texts.template.shape[1]
        if x.shape[1] != width:
            raise UserError(
                f"The photos of {path} have width {x.shape[1]}, the class texts {width}.",
                "Embed both with the same encoder.",
            )


def without(pool: Tensor, known: Tensor) -> Tensor:
    """Return the photos of a pool (n, d) that are not among known ones (m, d)."""
    if not len(known) or not len(pool):
        return pool
    twice = torch.cat([(rows @ known.T).amax(1) > 1 - 1e-5 for rows in pool.split(4096)])
    return pool[~twice]


def _others(
    problem: FewShot, pool: Tensor, wanted: list[str], semi: bool, seed: int
) -> dict[str, tuple[Any, float]]:
    """Return the rows to compare with, and their training times."""
    scale, classes = problem.scale, problem.classes
    t = classes.text(CLASS_TEXT)

    def zero_shot(x: Tensor, asked: ClassSet, choice: ClassText = CLASS_TEXT) -> Tensor:
        return scale * x @ asked.text(choice).T

    def template(x: Tensor, asked: ClassSet) -> Tensor:
        return zero_shot(x, asked, ClassText())

    rows: dict[str, tuple[Any, float]] = {
        "zero-shot": (Fitted(zero_shot), 0.0),
        "zero-shot template": (Fitted(template), 0.0),
    }
    if wanted == ["none"] or semi:
        return rows
    for name, rule in RULES.items():
        start = time.perf_counter()
        classify = rule(pool, t, scale, seed)
        taken = time.perf_counter() - start
        rows[name] = (Fitted(lambda x, _, f=classify: f(x), t.numel()), taken)

    def transductive(x: Tensor, asked: ClassSet) -> Tensor:
        return transclip(x, asked.text(CLASS_TEXT), scale).clamp_min(1e-12).log()

    rows["TransCLIP"] = (Fitted(transductive), 0.0)
    return rows

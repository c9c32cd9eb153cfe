"""Image-text retrieval, both directions: ``x`` alone, ``h(x)``, and their mixture.

The field's protocol (Karpathy splits): rank all captions for an image and all images for a
caption; an image's hit is any of its captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.embed.texts import encode_texts
from ...pipeline.errors import UserError
from ..metrics.intervals import bootstrap_difference, small_set_note
from ..metrics.recall import first_relevant_rank, median_rank, recall_at
from ..published import published_retrieval
from ..results import MethodResult, Results
from .data import (
    CaptionSet,
    caption_set,
    readable_features,
    relevance_groups,
    some,
    training_and_validation,
)
from .train import CaptionAdapter

if TYPE_CHECKING:
    from pathlib import Path

    from ...pipeline.datasets import Dataset
    from ...pipeline.datasets.records import Contrast
    from ...pipeline.encoders.base import Encoder
    from ..run import RunFolder

WEIGHTS = tuple(round(0.1 * tenth, 1) for tenth in range(11))
METRICS = [f"{way} R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]


def mixture(x: np.ndarray, h: np.ndarray, weight: float) -> np.ndarray:
    """Return ``(1 − weight)·x + weight·h`` at unit length, (n, d)."""
    mixed = (1 - weight) * x + weight * h
    return mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)


def retrieval_ranks(
    queries: np.ndarray, captions: np.ndarray, groups: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return ranks image→text (n,) and text→image (t,); ``owner`` (t,) is a caption's image."""
    there = first_relevant_rank(queries, captions, groups, groups[owner])
    back = first_relevant_rank(captions, queries, groups[owner], groups)
    return there, back


def retrieval_row(there: np.ndarray, back: np.ndarray) -> dict[str, float]:
    """Return the columns of the table, in percent, and ``mean R`` of the six recalls."""
    row = {f"i2t {name}": value for name, value in recall_at(there).items()}
    row |= {f"t2i {name}": value for name, value in recall_at(back).items()}
    return row | {"mean R": sum(row.values()) / len(row)}


def image_hits(there: np.ndarray, back: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Return each image's share (n,) of the six recalls: its own hits, and its captions' mean."""
    own = np.mean([there <= k for k in (1, 5, 10)], 0)
    lines = np.mean([back <= k for k in (1, 5, 10)], 0)
    counts = np.maximum(np.bincount(owner, minlength=len(there)), 1)
    return (own + np.bincount(owner, lines, minlength=len(there)) / counts) / 2


def choose_weight(val: CaptionSet, h: np.ndarray) -> float:
    """Return the weight of ``h(x)`` with the best mean recall on validation; ties to the lower."""
    return WEIGHTS[int(np.argmax(weight_scores(val, h)))]


def weight_scores(val: CaptionSet, h: np.ndarray) -> list[float]:
    """Return the mean recall on validation with each of :data:`WEIGHTS`, in percent."""
    texts, owner, _ = val.flat()
    groups = relevance_groups([image.captions for image in val.images])
    x = val.x.numpy()
    scores = []
    for weight in WEIGHTS:
        ranks = retrieval_ranks(mixture(x, h, weight), texts, groups, owner)
        scores.append(retrieval_row(*ranks)["mean R"])
    return scores


def evaluate_retrieval(
    dataset: Dataset,
    encoder: Encoder,
    adapters: Sequence[CaptionAdapter],
    *,
    run: RunFolder | None = None,
    max_images: int = 0,
    source: Dataset | None = None,
    strict: bool = False,
) -> Results:
    """Evaluate ``x``, ``h(x)`` and the mixture on the test split; one adapter a seed.

    Args:
        run: where to keep the table, if anywhere.
        max_images: test images to use; 0 is all.
        source: where the mixture's weight is chosen, if ``dataset`` has test images alone.
        strict: stop at an image that cannot be read, instead of leaving it out.

    Raises:
        UserError: no test image has a caption, or an adapter belongs to another encoder.
    """
    if not adapters:
        raise UserError("Retrieval needs at least one adapter trained on captions.")
    for adapter in adapters:
        adapter.check_encoder(encoder)
    images = dataset.captions("test")
    test = caption_set(encoder, some(images, max_images), "test", strict)
    _, validation = training_and_validation(source or dataset)
    validation = some(validation, adapters[0].config.max_validation)
    val = caption_set(encoder, validation, "validation", strict)
    texts, owner, lines = test.flat()
    groups = relevance_groups([image.captions for image in test.images])
    shared = len(groups) - len(np.unique(groups))
    karpathy = dataset.layout.kind == "karpathy"
    if karpathy:  # scored as in the literature: an image's own captions alone are right
        groups = np.arange(len(groups))
    x = test.x.numpy()

    plain = retrieval_ranks(x, texts, groups, owner)
    zero_shot = MethodResult(
        "x (zero-shot)",
        [retrieval_row(*plain)],
        details={"median rank": [median_rank(ranks) for ranks in plain]},
    )
    prompt = MethodResult("h(x)", [], group="ours", parameters=adapters[0].parameters)
    mixed = MethodResult(
        "x + h(x)",
        [],
        group="ours",
        parameters=adapters[0].parameters,
        note="weight of h(x) chosen on validation",
    )
    differences: dict[str, list[np.ndarray]] = {"h(x) - x": [], "x + h(x) - x": []}
    h, own_ranks = x, plain
    for adapter in adapters:
        seed = adapter.config.seed
        weight = choose_weight(val, adapter.h(val.x.numpy()))
        h = adapter.h(x)
        for method, queries in ((prompt, h), (mixed, mixture(x, h, weight))):
            ranks = retrieval_ranks(queries, texts, groups, owner)
            method.seeds.append({"seed": seed, **retrieval_row(*ranks)})
            medians = [median_rank(part) for part in ranks]
            method.details.setdefault("median rank", []).append(medians)
            hits = image_hits(*ranks, owner) - image_hits(*plain, owner)
            differences[f"{method.name} - x"].append(hits)
            own_ranks = ranks if method is prompt else own_ranks
        mixed.details.setdefault("weight", []).append(weight)
    notes = small_set_note(len(test.images), "images")
    if shared:
        rule = (
            "wrong answers for each other, as in the literature"
            if karpathy
            else ("right answers for each other")
        )
        notes.append(
            f"{len(groups) - shared} distinct groups of captions among {len(groups)} images:"
            f" images that share a caption word for word count as {rule}"
        )
    published = (
        published_retrieval(dataset.manifest.name, encoder.id, len(test.images)) if karpathy else []
    )
    results = Results(
        task="retrieval",
        protocol="retrieval/1",
        dataset=dataset.manifest.name,
        encoder=encoder.id,
        metrics=[*METRICS, "mean R"],
        methods=[zero_shot, prompt, mixed, *published],
        best="mean R",
        title=f"Image-text retrieval, {len(test.images)} images, {len(lines)} captions",
        units=dict.fromkeys([*METRICS, "mean R"], "%"),
        notes=[*notes, *([encoder.notes] if encoder.notes else [])],
        intervals={
            name: {"mean R": bootstrap_difference(np.mean(rows, 0))}
            for name, rows in differences.items()
        },
        samples=_samples(test, h, texts, lines, own_ranks[0]),
        details={"samples": f"h(x), seed {adapters[-1].config.seed}"},
    )
    if run:
        run.save_results(results)
    return results


def _samples(
    test: CaptionSet,
    queries: np.ndarray,
    texts: np.ndarray,
    lines: list[str],
    ranks: np.ndarray,
) -> list[dict[str, Any]]:
    """Ten images whose first caption is right, and ten where it is not, the worst first.

    ``ranks`` are those of ``queries``.
    """
    good = [int(i) for i in np.flatnonzero(ranks == 1)[:10]]
    bad = [int(i) for i in np.argsort(-ranks, kind="stable")[:10] if ranks[i] > 1]
    rows = []
    for index in good + bad:
        first = int(np.argmax(texts @ queries[index]))
        rows.append(
            {
                "image": str(test.images[index].path),
                "truth": test.images[index].captions[0],
                "output": lines[first],
                "good": index in good,
                "score": f"rank {ranks[index]}",
            }
        )
    return rows


def contrast_accuracy(
    image: np.ndarray, caption: np.ndarray, negative: np.ndarray, categories: Sequence[str]
) -> dict[str, float]:
    """Return the percentage of images nearer to their caption than to its hard negative.

    All inputs (n, d). A tie is an error, as in SugarCrepe (Hsieh et al. 2023). Keys are the
    categories and ``"mean"``, the mean over categories.
    """
    right = np.einsum("nd,nd->n", image, caption) > np.einsum("nd,nd->n", image, negative)
    names = np.asarray(categories)
    row = {str(name): 100.0 * float(right[names == name].mean()) for name in np.unique(names)}
    return row | {"mean": sum(row.values()) / len(row)}


def evaluate_contrasts(
    dataset: Dataset,
    encoder: Encoder,
    adapters: Sequence[CaptionAdapter],
    *,
    run: RunFolder | None = None,
    strict: bool = False,
) -> Results:
    """Evaluate caption against hard negative (SugarCrepe's official JSON) with x and h(x).

    Images that cannot be read are left out, unless ``strict``.

    Raises:
        UserError: the data set has no contrasts.
    """
    rows: list[Contrast] = dataset.contrasts("test")
    paths: list[Path] = [row.path for row in rows]
    found = readable_features(encoder, paths, "test", strict=strict)
    x, rows = found.x, [rows[i] for i in found.kept]
    caption = encode_texts(encoder, [row.caption for row in rows])
    negative = encode_texts(encoder, [row.negative_caption for row in rows])
    categories = [row.category for row in rows]
    plain = contrast_accuracy(x, caption, negative, categories)
    methods = [MethodResult("x (zero-shot)", [plain])]
    if adapters:
        ours = MethodResult("h(x)", [], group="ours", parameters=adapters[0].parameters)
        for adapter in adapters:
            adapter.check_encoder(encoder)
            row = contrast_accuracy(adapter.h(x), caption, negative, categories)
            ours.seeds.append({"seed": adapter.config.seed, **row})
        methods.append(ours)
    results = Results(
        task="contrasts",
        protocol="contrasts/1",
        dataset=dataset.manifest.name,
        encoder=encoder.id,
        metrics=list(plain),
        methods=methods,
        best="mean",
        title=f"Caption against hard negative, {len(rows)} pairs",
        units=dict.fromkeys(plain, "%"),
        notes=[encoder.notes] if encoder.notes else [],
    )
    if run:
        run.save_results(results)
    return results

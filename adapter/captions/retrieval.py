"""Image-text retrieval, both directions: ``x`` alone, ``h(x)``, and their mixture.

The field's protocol (Karpathy splits): rank all captions for an image and all images for a
caption; an image's hit is any of its captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics.intervals import bootstrap_difference, small_set_note
from ..metrics.recall import first_relevant_rank, median_rank, recall_at
from ..published import published_retrieval
from ..results import MethodResult, Results
from .data import (
    CaptionSet,
    caption_set,
    relevance_groups,
    some,
    training_and_validation,
)
from .train import CaptionAdapter, check_adapters

if TYPE_CHECKING:
    from ...pipeline.datasets import Dataset
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
    check_adapters(adapters, encoder, "Retrieval")
    images = dataset.captions("test")
    test = caption_set(encoder, some(images, max_images), "test", strict)
    _, validation = training_and_validation(source or dataset)
    validation = some(validation, adapters[0].config.max_validation)
    val = caption_set(encoder, validation, "validation", strict)
    table = _Table(_Gallery(test, official=dataset.layout.kind == "karpathy"), adapters[0])
    h = table.gallery.x
    for adapter in adapters:
        weight = choose_weight(val, adapter.h(val.x.numpy()))
        h = adapter.h(table.gallery.x)
        table.add(adapter.config.seed, h, weight)
    results = table.results(dataset, encoder)
    results.samples = _samples(table.gallery, h, table.shown)
    results.details = {"samples": f"h(x), seed {adapters[-1].config.seed}"}
    if run:
        run.save_results(results)
    return results


class _Gallery:
    """Test images and captions, and which of them are right answers for each other.

    Args:
        official: scored as in the literature: an image's own captions alone are right. Else
            images that share a caption word for word are right for each other.
    """

    def __init__(self, test: CaptionSet, official: bool) -> None:
        self.test, self.official = test, official
        self.x = test.x.numpy()
        self.texts, self.owner, self.lines = test.flat()
        groups = relevance_groups([image.captions for image in test.images])
        self.distinct = len(np.unique(groups))
        self.groups = np.arange(len(groups)) if official else groups

    def ranks(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ranks of both directions; see :func:`retrieval_ranks`."""
        return retrieval_ranks(queries, self.texts, self.groups, self.owner)

    def notes(self) -> list[str]:
        """Say how images that share a caption are scored, where there are some."""
        if self.distinct == len(self.groups):
            return []
        rule = (
            "wrong answers for each other, as in the literature"
            if self.official
            else "right answers for each other"
        )
        return [
            f"{self.distinct} distinct groups of captions among {len(self.groups)} images:"
            f" images that share a caption word for word count as {rule}"
        ]


class _Table:
    """The rows ``x``, ``h(x)`` and their mixture as they are made, one adapter after another."""

    def __init__(self, gallery: _Gallery, adapter: CaptionAdapter) -> None:
        self.gallery = gallery
        self.plain = gallery.ranks(gallery.x)
        self.zero_shot = MethodResult(
            "x (zero-shot)",
            [retrieval_row(*self.plain)],
            details={"median rank": [median_rank(ranks) for ranks in self.plain]},
        )
        trained = adapter.parameters
        self.prompt = MethodResult("h(x)", [], "ours", parameters=trained)
        note = "weight of h(x) chosen on validation"
        self.mixed = MethodResult("x + h(x)", [], "ours", note, parameters=trained)
        self.differences: dict[str, list[np.ndarray]] = {"h(x) - x": [], "x + h(x) - x": []}
        self.shown = self.plain[0]
        """Ranks image→text (n,) of the last ``h(x)``."""

    def add(self, seed: int, h: np.ndarray, weight: float) -> None:
        """Rank by ``h`` (n, d), and by its mixture with ``x``."""
        plain, owner = self.plain, self.gallery.owner
        for method, queries in (
            (self.prompt, h),
            (self.mixed, mixture(self.gallery.x, h, weight)),
        ):
            ranks = self.gallery.ranks(queries)
            method.seeds.append({"seed": seed, **retrieval_row(*ranks)})
            medians = [median_rank(part) for part in ranks]
            method.details.setdefault("median rank", []).append(medians)
            hits = image_hits(*ranks, owner) - image_hits(*plain, owner)
            self.differences[f"{method.name} - x"].append(hits)
            self.shown = ranks[0] if method is self.prompt else self.shown
        self.mixed.details.setdefault("weight", []).append(weight)

    def results(self, dataset: Dataset, encoder: Encoder) -> Results:
        """Return the table with published figures, notes and intervals."""
        gallery, name = self.gallery, dataset.manifest.name
        images = len(gallery.test.images)
        published = published_retrieval(name, encoder.id, images) if gallery.official else []
        return Results(
            task="retrieval",
            protocol="retrieval/1",
            dataset=name,
            encoder=encoder.id,
            metrics=[*METRICS, "mean R"],
            methods=[self.zero_shot, self.prompt, self.mixed, *published],
            best="mean R",
            title=f"Image-text retrieval, {images} images, {len(gallery.lines)} captions",
            units=dict.fromkeys([*METRICS, "mean R"], "%"),
            notes=[
                *small_set_note(images, "images"),
                *gallery.notes(),
                *([encoder.notes] if encoder.notes else []),
            ],
            intervals={
                pair: {"mean R": bootstrap_difference(np.mean(rows, 0))}
                for pair, rows in self.differences.items()
            },
        )


def _samples(gallery: _Gallery, queries: np.ndarray, ranks: np.ndarray) -> list[dict[str, Any]]:
    """Ten images whose first caption is right, and ten where it is not, the worst first.

    ``ranks`` are those of ``queries``.
    """
    good = [int(i) for i in np.flatnonzero(ranks == 1)[:10]]
    bad = [int(i) for i in np.argsort(-ranks, kind="stable")[:10] if ranks[i] > 1]
    images = gallery.test.images
    return [
        {
            "image": str(images[index].path),
            "truth": images[index].captions[0],
            "output": gallery.lines[int(np.argmax(gallery.texts @ queries[index]))],
            "good": index in good,
            "score": f"rank {ranks[index]}",
        }
        for index in good + bad
    ]

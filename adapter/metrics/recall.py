"""Cross-modal retrieval: rank of the first relevant item, R@K, median rank.

Letters: ``q`` queries, ``g`` gallery items, ``d`` width. The similarity matrix is never held whole:
30,000 × 150,000 needs 18 GB, a block of it needs ``block × g`` floats.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...pipeline.errors import UserError

_BLOCK_BYTES = 256 << 20  # of one block of similarities


def first_relevant_rank(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_groups: Sequence[int] | np.ndarray,
    gallery_groups: Sequence[int] | np.ndarray,
    *,
    block: int = 0,
) -> np.ndarray:
    """Return for each query the rank ``(q,)``, from 1, of the best relevant gallery item.

    Relevant are the items of the query's own group: with five captions an image, the image's number
    is the group of the image and of its captions. Similarity is the dot product. Ties are broken
    by position in the gallery, as a stable sort of the full matrix would, so that an encoder
    that maps everything to one vector does not get a perfect score.

    Args:
        queries: ``(q, d)``, unit length for cosine similarity.
        gallery: ``(g, d)``.
        block: queries a block; 0 chooses one of at most 256 MiB.

    >>> e = np.eye(3, dtype=np.float32)
    >>> first_relevant_rank(e, e[[0, 0, 2, 1]], [0, 1, 2], [1, 0, 2, 1]).tolist()
    [2, 1, 1]

    Raises:
        UserError: widths differ, lengths differ, a query has no relevant item, or a value is not
            finite.
    """
    query_group = np.asarray(query_groups, np.int64)
    gallery_group = np.asarray(gallery_groups, np.int64)
    _check(queries, gallery, query_group, gallery_group)
    order = np.argsort(gallery_group, kind="stable")
    first = np.searchsorted(gallery_group[order], query_group, side="left")
    last = np.searchsorted(gallery_group[order], query_group, side="right")
    if (first == last).any():
        missing = int((first == last).sum())
        raise UserError(
            f"{missing} of {len(queries)} queries have no relevant item in the gallery.",
            "Leave images without captions, and captions without images, out of the evaluation.",
        )
    block = block or max(1, min(len(queries), _BLOCK_BYTES // (4 * len(gallery))))
    right = torch.as_tensor(np.ascontiguousarray(gallery, np.float32)).T
    ranks = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        left = torch.as_tensor(np.ascontiguousarray(queries[rows], np.float32))
        scores = left @ right  # (block, g)
        sizes = (last - first)[rows]
        starts = np.cumsum(sizes) - sizes
        row = np.repeat(np.arange(len(sizes)), sizes)
        within = np.arange(len(row)) - np.repeat(starts, sizes)
        column = order[np.repeat(first[rows], sizes) + within]
        relevant = scores[torch.from_numpy(row), torch.from_numpy(column)].numpy()
        best = np.maximum.reduceat(relevant, starts)
        # among equally good relevant items a stable sort meets the one with the lowest index first
        place = np.minimum.reduceat(np.where(relevant == best[row], column, len(gallery)), starts)
        bar = torch.from_numpy(best)[:, None]
        rank = 1 + (scores > bar).sum(1).numpy()
        tied = np.flatnonzero((scores >= bar).sum(1).numpy() > rank)
        for index in tied:
            rank[index] += int((scores[index, : place[index]] == bar[index]).sum())
        ranks[rows] = rank
    return ranks


def recall_at(ranks: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Return ``{"R@1": …}`` in percent: the share of queries with a relevant item in the first k.

    >>> recall_at(np.array([1, 2, 7, 40]))
    {'R@1': 25.0, 'R@5': 50.0, 'R@10': 75.0}
    """
    return {f"R@{k}": 100.0 * float(np.mean(ranks <= k)) for k in ks}


def median_rank(ranks: np.ndarray) -> float:
    """Return the median rank, from 1; lower is better."""
    return float(np.median(ranks))


def _check(
    queries: np.ndarray, gallery: np.ndarray, query_group: np.ndarray, gallery_group: np.ndarray
) -> None:
    if not len(queries) or not len(gallery):
        raise UserError("Retrieval needs at least one query and one gallery item.")
    if queries.shape[1] != gallery.shape[1]:
        raise UserError(
            f"Queries have width {queries.shape[1]}, the gallery {gallery.shape[1]}.",
            "Encode both with one encoder.",
        )
    if len(queries) != len(query_group) or len(gallery) != len(gallery_group):
        raise UserError("Every query and every gallery item needs exactly one group.")
    for name, values in (("queries", queries), ("gallery", gallery)):
        # the sum is not finite if any value is not; no array of booleans as large as the input
        if not np.isfinite(np.sum(values, dtype=np.float64)):
            raise UserError(f"The {name} contain values that are not finite.")

"""Retrieval ranks: the blocked way equals the naive matrix, ties included."""

from __future__ import annotations

import numpy as np
import pytest

from aape.adapter.metrics.recall import first_relevant_rank, median_rank, recall_at
from aape.pipeline.errors import UserError


def naive_ranks(queries, gallery, query_groups, gallery_groups) -> np.ndarray:
    """Sort every row of the full matrix; the position of the first item of the query's group."""
    order = np.argsort(-(queries @ gallery.T), axis=1, kind="stable")
    hits = np.asarray(gallery_groups)[order] == np.asarray(query_groups)[:, None]
    return hits.argmax(1) + 1


@pytest.mark.parametrize("block", [0, 1, 7, 1000])
@pytest.mark.parametrize(("q", "g", "groups"), [(13, 65, 13), (50, 31, 5), (1, 1, 1)])
def test_equals_the_naive_matrix_with_ties(block: int, q: int, g: int, groups: int) -> None:
    rng = np.random.default_rng(q)
    # whole numbers make many ties and exact sums in any order of summation
    queries = rng.integers(-2, 3, (q, 4)).astype(np.float32)
    gallery = rng.integers(-2, 3, (g, 4)).astype(np.float32)
    gallery_groups = rng.permutation(np.arange(g) % groups)
    query_groups = rng.choice(gallery_groups, q)
    ours = first_relevant_rank(queries, gallery, query_groups, gallery_groups, block=block)
    assert ours.tolist() == naive_ranks(queries, gallery, query_groups, gallery_groups).tolist()


def test_five_captions_an_image() -> None:
    """Image→text counts the best of five captions, text→image the one image of a caption."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(40, 16)).astype(np.float32)
    captions = np.repeat(images, 5, 0) + rng.normal(size=(200, 16)).astype(np.float32) * 1.5
    image_groups, caption_groups = np.arange(40), np.repeat(np.arange(40), 5)
    there = first_relevant_rank(images, captions, image_groups, caption_groups, block=16)
    back = first_relevant_rank(captions, images, caption_groups, image_groups, block=16)
    assert there.tolist() == naive_ranks(images, captions, image_groups, caption_groups).tolist()
    assert back.tolist() == naive_ranks(captions, images, caption_groups, image_groups).tolist()
    assert recall_at(there)["R@1"] > recall_at(back)["R@1"]


def test_a_collapsed_encoder_gets_no_perfect_score() -> None:
    same = np.ones((100, 4), np.float32)
    ranks = first_relevant_rank(same, same, np.arange(100), np.arange(100))
    assert recall_at(ranks) == {"R@1": 1.0, "R@5": 5.0, "R@10": 10.0}
    assert median_rank(ranks) == 50.5


def test_bad_input_is_named() -> None:
    eye = np.eye(3, dtype=np.float32)
    with pytest.raises(UserError, match="1 of 3 queries have no relevant item"):
        first_relevant_rank(eye, eye, [0, 1, 2], [0, 1, 1])
    with pytest.raises(UserError, match="width 3, the gallery 2"):
        first_relevant_rank(eye, eye[:, :2], [0, 1, 2], [0, 1, 2])
    with pytest.raises(UserError, match="exactly one group"):
        first_relevant_rank(eye, eye, [0, 1], [0, 1, 2])
    with pytest.raises(UserError, match="not finite"):
        first_relevant_rank(eye * np.nan, eye, [0, 1, 2], [0, 1, 2])
    with pytest.raises(UserError, match="at least one"):
        first_relevant_rank(eye[:0], eye, [], [0, 1, 2])

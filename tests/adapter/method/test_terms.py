"""Terms that are kept and found again: generator and head, and the query."""

from __future__ import annotations

import pytest
import torch
from toy_shots import C, D, unit

from aape.adapter.method.convex_problem import Solution
from aape.adapter.method.model import Adapter
from aape.adapter.method.problem import ClassSet
from aape.adapter.method.query import Query
from aape.adapter.method.recipe import STAGED
from aape.adapter.method.terms import (
    AdaptedHead,
    AsQuery,
    Frame,
    OwnWeights,
    SharedMap,
    ZeroShot,
    for_seen,
)

W = unit(C, D, seed=1)
FRAME = Frame(STAGED.model_copy(update={"width": 5, "rank": 3}), W, 20.0)
CLASSES = ClassSet(W, W, W, None, torch.arange(C))


def head() -> AdaptedHead:
    """A head whose every value is random, also those that start at zero."""
    adapter = Adapter(FRAME.recipe, unit(D, seed=2), W, FRAME.scale)
    generator = torch.Generator().manual_seed(3)
    for parameter in adapter.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return AdaptedHead(adapter)


def test_scores_go_to_the_classes_that_were_trained():
    scores = torch.tensor([[1.0, 2.0, 3.0]])
    classes = ClassSet(*[W[:4]] * 3, None, torch.tensor([2, -1, 0, 1]))
    assert for_seen(scores, classes).tolist() == [[3.0, 0.0, 1.0, 2.0]]


def test_a_head_counts_and_keeps_all_but_the_residuals():
    kept = head()
    generator = 2 * D * 5 + 5 + D  # there and back, with a bias each
    g = D * 3 + 3 + D * 3 + D * 3  # of text and prompt to three units, and back without a bias
    assert kept.parameters == generator + g
    assert kept.adapter.delta is not None
    assert "delta" not in kept.tensors()
    x = unit(4, D, seed=4)
    again = AdaptedHead.load(kept.tensors() | {"delta": torch.ones(C, D)}, FRAME)
    assert again is not None
    assert not again.adapter.training
    torch.testing.assert_close(again(x, CLASSES), kept(x, CLASSES), rtol=0, atol=0)
    expected = kept.adapter.general(x, W, kept.adapter.embed(x))
    torch.testing.assert_close(kept(x, CLASSES), expected)
    assert AdaptedHead.load({"delta": torch.ones(C, D)}, FRAME) is None


@pytest.mark.parametrize("name", ["head.from_text.bias", "generator.mean_image"])
def test_a_head_of_which_a_part_is_missing_is_refused(name):
    """What is missing would stay as random as it starts."""
    tensors = {key: tensor for key, tensor in head().tensors().items() if key != name}
    with pytest.raises(KeyError, match=name):
        AdaptedHead.load(tensors, FRAME)


def test_a_query_counts_its_map_and_is_found_again():
    query = Query(unit(D, D, seed=5), unit(D, seed=6), unit(D, seed=7))
    term = AsQuery(query, 20.0)
    assert term.parameters == D * D
    x = unit(4, D, seed=8)
    torch.testing.assert_close(term(x, CLASSES), 20 * query(x, W))
    again = AsQuery.load(term.tensors() | ZeroShot(20.0).tensors(), FRAME)
    assert again is not None
    torch.testing.assert_close(again(x, CLASSES), term(x, CLASSES), rtol=0, atol=0)
    assert AsQuery.load({"query.mean_text": torch.ones(D)}, FRAME) is None


def test_a_problem_without_a_map_gives_no_term():
    shift, mean = unit(D, seed=1), unit(D, seed=2)
    weight, bias, matrix = unit(D, C, seed=3), unit(C, seed=4), unit(D, D, seed=5)
    assert SharedMap.of(Solution(weight, bias, None, shift, mean)) is None
    term = SharedMap.of(Solution(weight, bias, matrix, shift, mean))
    assert term is not None
    again = SharedMap.load(term.tensors(), FRAME)
    assert again is not None
    for found in (term, again):
        assert found.matrix is matrix
        assert found.shift is shift
        assert found.mean_text is mean
    assert SharedMap.load({"own.bias": bias}, FRAME) is None


def test_biases_are_trained_values_too():
    """Of seven numbers a photo and three classes."""
    assert OwnWeights(torch.zeros(7, 3), torch.zeros(3)).parameters == 24
    assert SharedMap(torch.zeros(7, 7), torch.zeros(7), torch.zeros(7)).parameters == 56

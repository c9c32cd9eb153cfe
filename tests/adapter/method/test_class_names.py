"""Names chosen by training photos: the right one is found, and new classes keep theirs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import unit
from toy_world import world

from aape.adapter.classification.best_names import OtherTexts, with_best_names
from aape.adapter.classification.data import ClassificationData, ClassTexts, LabelledImages
from aape.adapter.classification.protocols import load_protocol
from aape.adapter.method.class_names import OtherNames, choose_names
from aape.pipeline.errors import UserError

SCALE = 30.0


def _candidates(t: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> OtherNames:
    """For every class a name that is right (0, 2, 4 …) and one that means something else."""
    means = torch.stack([F.normalize(x[y == label].mean(0), dim=0) for label in range(len(t))])
    right = F.normalize(0.5 * t + 0.5 * means, dim=-1)
    other = F.normalize(t + 1.5 * unit(*t.shape, seed=3), dim=-1)
    owner = torch.arange(len(t)).repeat_interleave(2)
    return OtherNames(owner, torch.stack([right, other], 1).flatten(0, 1))


def test_the_name_that_photos_fit_is_taken() -> None:
    x, y, t = world([8] * 6)
    others = _candidates(t, x, y)
    assert choose_names(x, y, t, others, SCALE) == [2 * label for label in range(6)]
    # a class without photos keeps its name
    some = y != 3
    assert choose_names(x[some], y[some], t, others, SCALE)[3] == -1


def test_nothing_is_chosen_by_chance() -> None:
    x, y, t = world([4] * 8)
    owner = torch.arange(8).repeat_interleave(2)
    same = OtherNames(owner, t[owner])  # names that mean the same
    assert choose_names(x, y, t, same, SCALE) == [-1] * 8
    # where labels say nothing, a strict doubt keeps nearly all names
    near = F.normalize(t[owner] + 0.3 * unit(16, t.shape[1], seed=5), dim=-1)
    mixed = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]
    moved = choose_names(x, mixed, t, OtherNames(owner, near), SCALE, 3.0)
    assert sum(name >= 0 for name in moved) <= 1
    # of one photo there is no deviation, so nothing is sure
    one = torch.tensor([0])
    assert choose_names(x[one], y[one], t, OtherNames(owner, near), SCALE, 0.0) == [-1] * 8


def _data(t: torch.Tensor, x: torch.Tensor, y: torch.Tensor, others: OtherNames | None):
    c = len(t)
    array = t.numpy()
    photos = LabelledImages(x.numpy(), y.numpy())
    other = None
    if others is not None:
        vectors = others.text.numpy()
        names = [f"other {i}" for i in range(len(vectors))]
        other = OtherTexts(names, others.owner.numpy(), vectors, vectors)
    texts = ClassTexts(
        [f"class {i}" for i in range(c)], array, array, array[:, None],
        np.ones((c, 1), bool), others=other,
    )  # fmt: skip
    return ClassificationData(
        "toy", "fake", texts, photos, LabelledImages(x[:0].numpy(), y[:0].numpy()), photos,
        list(range(c // 2)), list(range(c // 2, c)), 8, 1, SCALE,
    )  # fmt: skip


def test_new_classes_and_labels_keep_their_names() -> None:
    x, y, t = world([8] * 6)
    data = _data(t, x, y, _candidates(t, x, y))
    trained = load_protocol("base2new").trained_ids(data)
    renamed = with_best_names(data, trained)
    changed = (renamed.texts.ensemble != data.texts.ensemble).any(1)
    assert changed.tolist() == [True] * 3 + [False] * 3
    assert renamed.texts.names == data.texts.names
    assert renamed.hash != data.hash
    assert "gave 3 of 3 classes another name: class 0 as other 0" in renamed.notes[-1]
    # photos of new classes are not looked at
    hidden = torch.where((y < 3)[:, None], x, unit(*x.shape, seed=9))
    blind = replace(data, train=LabelledImages(hidden.numpy(), y.numpy()))
    np.testing.assert_array_equal(with_best_names(blind, trained).texts.ensemble,
                                  renamed.texts.ensemble)  # fmt: skip


def test_nothing_to_choose_from() -> None:
    x, y, t = world([8] * 6)
    with pytest.raises(UserError, match="No other names"):
        with_best_names(_data(t, x, y, None), [0, 1, 2])

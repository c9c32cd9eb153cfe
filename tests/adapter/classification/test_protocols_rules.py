"""Protocols: which classes are trained on, which are told apart, and how a row is summarised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import unit_rows

from aape.adapter.classification import data as classification
from aape.adapter.classification.data import ClassificationData, ClassTexts, LabelledImages
from aape.adapter.classification.protocols import PROTOCOLS, SEMI, UNLABELLED, load_protocol
from aape.adapter.method.problem import ClassText
from aape.adapter.published import (
    AVERAGE_BASE2NEW,
    ZERO_SHOT_BASE2NEW,
    published_retrieval,
    published_rows,
)
from aape.pipeline.errors import UserError


def make(c: int = 5, shots: int = 2, d: int = 8, seed: int = 0, name: str = "toy"):
    """A data set whose new classes have prompts that must not be looked at."""
    generator = np.random.default_rng(seed)

    def images(count: int) -> LabelledImages:
        y = np.tile(np.arange(c), count)
        return LabelledImages(unit_rows(generator.normal(size=(len(y), d))), y)

    template = unit_rows(generator.normal(size=(c, d)))
    prompts = unit_rows(generator.normal(size=(c, 3, d)))
    texts = ClassTexts(
        [f"{name} {i}" for i in range(c)], template, template, prompts, np.ones((c, 3), bool)
    )
    half = (c + 1) // 2
    base, new = list(range(half)), list(range(half, c))
    return ClassificationData(
        name, "an encoder", texts, images(shots), images(1), images(4), base, new, shots, seed
    )


def test_base2new_tests_each_half_by_itself():
    data = make()
    base, new = load_protocol("base2new").test_sets(data)
    assert (len(base.classes), len(new.classes)) == (3, 2)
    assert base.classes.seen.tolist() == [0, 1, 2]
    assert new.classes.seen.tolist() == [-1, -1]
    assert sorted(set(new.images.y.tolist())) == [0, 1]
    assert new.names == ["toy 3", "toy 4"]
    rows = np.flatnonzero(data.test.y == 4)
    np.testing.assert_array_equal(new.images.x[new.images.y == 1], data.test.x[rows])


def test_generalized_tells_all_classes_apart():
    base, new = load_protocol("generalized").test_sets(make())
    assert len(base.classes) == len(new.classes) == 5
    assert sorted(set(new.images.y.tolist())) == [3, 4]
    assert base.classes.seen.tolist() == [0, 1, 2, -1, -1]


def test_fewshot_trains_on_everything():
    (everything,) = load_protocol("fewshot/1").test_sets(make())
    assert (everything.classes.seen >= 0).all()
    assert everything.name == "accuracy"


def test_new_classes_have_what_the_bank_says_or_their_name_alone():
    data = make()
    protocol = load_protocol("base2new")
    described = torch.from_numpy(data.texts.described)
    base, new = protocol.test_sets(data)
    torch.testing.assert_close(new.classes.described, described[3:])
    torch.testing.assert_close(base.classes.described, described[:3])
    blend = ClassText("ensemble", 0.5)
    base_named, new_named = protocol.test_sets(data, new_classes="name")
    torch.testing.assert_close(new_named.classes.text(blend), new.classes.template)
    assert not torch.equal(new.classes.text(blend), new.classes.template)
    torch.testing.assert_close(base_named.classes.text(blend), base.classes.text(blend))


def test_new_classes_need_no_prompts_but_trained_ones_do():
    data = make()
    mask = np.ones((5, 3), bool)
    mask[4] = False
    replace(data, texts=replace(data.texts, mask=mask)).few_shot(data.base_ids)
    mask = mask.copy()
    mask[1] = False
    bare = replace(data, texts=replace(data.texts, mask=mask))
    with pytest.raises(UserError, match="'toy 1'"):
        bare.few_shot(bare.base_ids)


def test_features_of_all_classes_are_not_copied() -> None:
    images = make().test
    assert images.of([4, 2, 0, 1, 3]).x is images.x
    assert images.of([4, 2, 0, 1, 3]).y[:5].tolist() == [2, 3, 1, 4, 0]
    assert not np.shares_memory(images.of([1, 2]).x, images.x)
    images.x.setflags(write=False)
    assert images.of(range(5)).x.flags.writeable, "torch wants arrays that it may write to"


def test_prompts_of_all_classes_are_not_copied_and_their_means_come_in_pieces(monkeypatch) -> None:
    data = make()
    shared = data.few_shot(range(5)).prompts.numpy()
    assert np.shares_memory(shared, data.texts.prompts)
    assert not np.shares_memory(data.few_shot(data.base_ids).prompts.numpy(), data.texts.prompts)
    data.texts.prompts.setflags(write=False)
    assert data.few_shot(range(5)).prompts.numpy().flags.writeable
    mask = np.arange(3) < np.array([3, 1, 0, 2, 3])[:, None]
    texts = replace(data.texts, mask=mask)
    np.testing.assert_allclose(texts.described[1], texts.prompts[1, 0], atol=1e-6)
    np.testing.assert_array_equal(texts.described[2], texts.template[2])
    monkeypatch.setattr(classification, "_CLASSES_A_PIECE", 2)
    np.testing.assert_array_equal(replace(texts).described, texts.described)


def test_targets_of_cross_dataset_are_new_and_of_domain_are_matched_by_name():
    source, other = make(), make(c=3, seed=5, name="other")
    tests = load_protocol("cross-dataset").test_sets(source, [other])
    assert [t.name for t in tests] == ["source", "other"]
    assert tests[1].classes.seen.tolist() == [-1, -1, -1]
    subset = make(c=2, seed=6)
    subset = replace(subset, texts=replace(subset.texts, names=["toy 3", "toy 1"]), dataset="v2")
    domain = load_protocol("domain").test_sets(source, [subset])
    assert domain[1].classes.seen.tolist() == [3, 1]
    with pytest.raises(UserError, match="has classes that toy has not"):
        load_protocol("domain").test_sets(source, [other])
    with pytest.raises(UserError, match=r"needs target.*with --target, once for each"):
        load_protocol("domain").test_sets(source)
    with pytest.raises(UserError, match=r"has no target.*Leave out --target"):
        load_protocol("fewshot").test_sets(source, [other])
    many = make(c=7, name="other")
    with pytest.raises(UserError, match=r"toy has not: ('other \d', ){4}'other 4'\."):
        load_protocol("domain").test_sets(source, [many])
    same = "".join(["an ", "encoder"])  # equal, not the same object
    assert load_protocol("cross-dataset").test_sets(source, [replace(other, encoder=same)])
    with pytest.raises(UserError, match="was embedded by"):
        load_protocol("cross-dataset").test_sets(source, [replace(other, encoder="another")])


def test_summaries():
    base2new = load_protocol("base2new")
    assert base2new.row({"base": 60.0, "new": 40.0})["H"] == pytest.approx(48)
    np.testing.assert_allclose(base2new.summarise([np.array([60.0]), np.array([40.0])]), [48.0])
    cross = load_protocol("cross-dataset")
    assert cross.row({"source": 90.0, "a": 10.0, "b": 20.0})["mean"] == pytest.approx(15)
    arrays = [np.array([90.0]), np.array([10.0]), np.array([20.0])]
    np.testing.assert_allclose(cross.summarise(arrays), [15.0])


def test_columns_and_what_ranks_methods():
    other = make(c=3, seed=5, name="other")
    for name, targets, columns in (
        ("fewshot", [], ["accuracy"]),
        ("base2new", [], ["base", "new", "H"]),
        ("generalized", [], ["base", "new", "H"]),
        ("cross-dataset", [other], ["source", "other", "mean"]),
        ("domain", [other], ["source", "other", "mean"]),
    ):
        protocol = load_protocol(name)
        assert protocol.metrics(targets) == columns
        assert protocol.best == columns[-1]


def test_one_trained_class_is_refused():
    with pytest.raises(UserError, match="it needs two"):
        load_protocol("base2new").test_sets(make(c=2))


def test_names_and_versions():
    assert {protocol.id for protocol in PROTOCOLS.values()} == {
        f"{name}/1" for name in ("fewshot", "base2new", "generalized", "cross-dataset", "domain")
    }
    assert (UNLABELLED.id, SEMI.id) == ("unlabelled/1", "semi/1")
    with pytest.raises(UserError, match="Did you mean 'base2new'"):
        load_protocol("base2old")
    with pytest.raises(UserError, match="at version 1"):
        load_protocol("base2new/9")


def test_published_rows_agree_with_their_own_average():
    eleven = set(ZERO_SHOT_BASE2NEW.values())
    assert len(eleven) == 11
    (base, new, h), _ = AVERAGE_BASE2NEW["CLIP zero-shot"]
    assert np.mean([v[0] for v in eleven]) == pytest.approx(base, abs=0.01)
    assert np.mean([v[1] for v in eleven]) == pytest.approx(new, abs=0.01)
    for (base, new, h), _ in AVERAGE_BASE2NEW.values():
        assert 2 * base * new / (base + new) == pytest.approx(h, abs=0.011)
    for base, new, h in eleven:
        assert 2 * base * new / (base + new) == pytest.approx(h, abs=0.011)


def test_published_rows_only_where_the_protocol_is_the_same():
    there = "ViT-B-16-quickgelu/openai@0"
    assert len(published_rows("cars", there, "base2new", 16)) == 1
    assert not published_rows("cars", there, "base2new", 4)
    assert not published_rows("cars", there, "fewshot", 16)
    assert not published_rows("cars", "lite@0", "base2new", 16)


def test_published_retrieval_is_of_the_same_model_and_images():
    (row,) = published_retrieval("coco", "ViT-B-16-quickgelu/openai", 5000)
    assert row.group == "published"
    assert row.seeds[0]["i2t R@1"] == 52.42
    assert row.seeds[0]["mean R"] == pytest.approx(62.37, abs=0.01)
    (larger,) = published_retrieval("coco", "ViT-L-14-336-quickgelu/openai", 5000)
    assert larger.seeds[0]["t2i R@10"] == 71.47
    assert not published_retrieval("coco", "ViT-B-16-quickgelu/openai", 200)
    assert not published_retrieval("coco", "ViT-B-16/laion2b_s34b_b88k", 5000)
    assert not published_retrieval("flickr30k", "lite", 1000)

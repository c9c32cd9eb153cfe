"""Few-shot samples against published index lists; own splits; base and new classes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

import pytest

from aape.pipeline.datasets import Item, base_new_classes, few_shot, few_shot_train_val
from aape.pipeline.datasets.splits import Split, own_split, path_hash
from aape.pipeline.files import read_json

PUBLISHED = {
    "oxford_pets": "OxfordPets",
    "oxford_flowers": "OxfordFlowers",
    "stanford_cars": "StanfordCars",
}


def read_items(test_data: Path, title: str, split: str) -> list[Item]:
    rows = read_json(test_data / "coop_splits" / f"split_zhou_{title}.json")[split]
    return [Item(Path(path), label) for path, label, _ in rows]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 16])
@pytest.mark.parametrize("name", PUBLISHED)
def test_few_shot_samples_equal_the_published_lists(
    test_data: Path, name: str, shots: int, seed: int
) -> None:
    train, val = (read_items(test_data, PUBLISHED[name], split) for split in ("train", "val"))
    published = read_json(
        test_data / "coop_splits" / "indices" / name / f"shot_{shots}-seed_{seed}.json"
    )
    chosen_train, chosen_val = few_shot_train_val(train, val, shots, seed, repeat=False)
    # the index points into the split, so equal items at equal places are the same images
    assert chosen_train == [train[i] for i in published["train"]["indices"]]
    assert chosen_val == [val[i] for i in published["val"]["indices"]]
    assert few_shot(train, shots, seed, repeat=False) == chosen_train


def test_few_shot_repeats_images_of_a_small_class_as_coop_does() -> None:
    items = [Item(Path(f"{i}.jpg"), int(i >= 3)) for i in range(13)]
    chosen = few_shot(items, 8, seed=1)
    assert Counter(item.label for item in chosen) == {0: 8, 1: 8}
    once = few_shot(items, 8, seed=1, repeat=False)
    assert Counter(item.label for item in once) == {0: 3, 1: 8}
    assert few_shot(items, 8, seed=1) == chosen
    assert few_shot(items, 8, seed=2) != chosen


def test_few_shot_refuses_zero_shots() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        few_shot([], 0, seed=1)


@pytest.mark.parametrize(("n", "n_base"), [(24, 12), (37, 19), (102, 51), (1, 1), (0, 0)])
def test_base_classes_are_the_first_half_rounded_up(n: int, n_base: int) -> None:
    base, new = base_new_classes(n)
    assert len(base) == n_base
    assert base + new == list(range(n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 10, 101])
def test_own_split_depends_on_names_only_and_never_leaves_training_empty(n: int) -> None:
    keys = [f"class/{i}.jpg" for i in range(n)]
    splits = own_split(keys)
    reversed_splits = own_split(keys[::-1])
    assert splits == reversed_splits[::-1]
    counts = Counter(splits)
    assert counts["train"] >= 1
    assert counts["test"] >= (n > 1)
    assert counts["val"] >= (n > 2)
    if n > 50:
        assert counts == {"train": n - 50, "val": 20, "test": 30}


def test_own_split_keeps_a_fraction_of_zero_empty() -> None:
    counts = Counter(own_split([str(i) for i in range(10)], (0.8, 0.2, 0.0)))
    assert counts == {"train": 8, "val": 2}


def test_groups_that_another_class_has_placed_count_as_this_class_s_share() -> None:
    """Ten images, three to test: the two copies that lie in test already leave room for one."""
    keys = [f"{i}.jpg" for i in range(10)]
    groups: list[Hashable] = ["copies", "copies", *range(8)]
    placed: dict[Hashable, Split] = {"copies": "test", "of another class": "val"}
    splits = own_split(keys, groups=groups, placed=placed)
    assert splits[:2] == ["test", "test"]
    assert Counter(splits) == {"train": 5, "val": 2, "test": 3}
    assert {group: placed[group] for group in groups} == dict(zip(groups, splits))
    # more than its share lies in test: no further image does
    placed = dict.fromkeys(range(4), "test")
    assert Counter(own_split(keys, groups=range(10), placed=placed))["test"] == 4


def test_a_group_is_as_large_as_its_images() -> None:
    keys = [f"{i}.jpg" for i in range(10)]
    splits = own_split(keys, groups=[i // 4 for i in range(10)])  # of four, four and two
    assert Counter(splits) == {"train": 8, "test": 2}, "four fit into no share but training"


def test_the_rank_of_a_path_is_the_first_half_of_its_hash() -> None:
    assert path_hash("a/1.jpg") == int(hashlib.sha256(b"a/1.jpg").hexdigest()[:16], 16)
    assert path_hash("\udcff") == int(hashlib.sha256(b"\xff").hexdigest()[:16], 16)

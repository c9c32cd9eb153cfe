"""Which images are trained on: shots drawn as CoOp draws them, base and new classes, own splits.

Letters: ``s`` shots, ``n`` classes.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Hashable, Sequence

from .records import Item, Split

OWN_SPLIT_NOTE = "own deterministic split"
OWN_SHARES = (0.5, 0.2, 0.3)  # of train, val, test
# where a class has few images: settings then come from folds of those that are trained on
FEW_SHARES = (0.7, 0.0, 0.3)
FEW = 20  # images in a class of middling size


def few_shot(items: Sequence[Item], shots: int, seed: int, *, repeat: bool = True) -> list[Item]:
    """Sample ``shots`` images of every class exactly as CoOp does.

    The reference is ``generate_fewshot_dataset`` of Dassl: Python's generator is seeded, then
    ``random.sample`` is called once a class, in the order in which classes first occur in
    ``items``. In CoOp's base-to-new protocol the sample is drawn over all classes and the base
    classes are kept afterwards; do the same to get the same images.

    Args:
        items: a training split in the order of its split file (the order decides the sample).
        shots: images a class, at least 1.
        seed: CoOp uses 1, 2 and 3.
        repeat: draw a class with fewer images than ``shots`` with replacement, as CoOp does;
            otherwise take each of its images once, as ``cross_modal_adaptation`` does.
    """
    return _sample(items, shots, random.Random(seed), repeat)


def few_shot_train_val(
    train: Sequence[Item],
    val: Sequence[Item],
    shots: int,
    seed: int,
    *,
    max_val_shots: int = 4,
    repeat: bool = True,
) -> tuple[list[Item], list[Item]]:
    """Sample the training shots and, with the same generator going on, the validation shots.

    Validation gets ``min(shots, max_val_shots)`` images a class. The first list equals
    ``few_shot(train, shots, seed)``; the second depends on it, as in CoOp.
    """
    generator = random.Random(seed)
    chosen = _sample(train, shots, generator, repeat)
    return chosen, _sample(val, min(shots, max_val_shots), generator, repeat)


def _sample(
    items: Sequence[Item], shots: int, generator: random.Random, repeat: bool
) -> list[Item]:
    if shots < 1:
        raise ValueError(f"shots must be at least 1, not {shots}")
    by_label: dict[int, list[Item]] = {}
    for item in items:
        by_label.setdefault(item.label, []).append(item)
    chosen: list[Item] = []
    for candidates in by_label.values():
        if len(candidates) >= shots:
            chosen += generator.sample(candidates, shots)
        elif repeat:
            chosen += generator.choices(candidates, k=shots)
        else:
            chosen += candidates
    return chosen


def base_new_classes(n: int) -> tuple[list[int], list[int]]:
    """Return CoOp's base class ids, the first ``ceil(n / 2)``, and the new ones, the rest."""
    half = math.ceil(n / 2)
    return list(range(half)), list(range(half, n))


def own_split(
    keys: Sequence[str],
    fractions: tuple[float, float, float] = OWN_SHARES,
    groups: Sequence[Hashable] | None = None,
    placed: dict[Hashable, Split] | None = None,
) -> list[Split]:
    """Assign the images of one class to splits, by the rank of the hash of their relative paths.

    The same files get the same split on every machine, whatever the order of the listing. The
    default fractions are those that CoOp uses for data sets without a published split.

    Args:
        keys: the paths of all images of the class, relative to the data set.
        fractions: of train, val, test; they add up to 1, and a split of fraction 0 stays empty.
        groups: one a key; images with equal ones (copies, see :func:`.copies.same_content`) get the
            same split. A group that is larger than the room left in test and val is trained on.
        placed: splits of groups that are decided; those of this class are added.

    >>> own_split(["a", "b", "c", "d"])
    ['train', 'train', 'val', 'test']
    >>> own_split(["a", "b", "c", "d"], groups=[0, 1, 1, 2])
    ['val', 'train', 'train', 'test']
    """
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups if groups is not None else range(len(keys))):
        members.setdefault(group, []).append(i)
    placed = {} if placed is None else placed
    n = len(keys)
    n_test = _share(n, fractions[2], spare=1)
    room: dict[Split, int] = {"test": n_test, "val": _share(n, fractions[1], spare=n_test + 1)}
    for group in members.keys() & placed.keys():
        room[placed[group]] = room.get(placed[group], 0) - len(members[group])

    def rank(group: Hashable) -> tuple[int, str]:
        key = min(keys[i] for i in members[group])
        return path_hash(key), key

    splits: list[Split] = ["train"] * n
    for group in sorted(members, key=rank):
        if group not in placed:
            size = len(members[group])
            fits: list[Split] = [split for split, left in room.items() if size <= left]
            placed[group] = fits[0] if fits else "train"
            room[placed[group]] = room.get(placed[group], 0) - size
        for i in members[group]:
            splits[i] = placed[group]
    return splits


def _share(n: int, fraction: float, spare: int) -> int:
    """Round ``n * fraction``, at least 1 where ``spare`` images remain for the other splits."""
    if fraction == 0 or n <= spare:
        return 0
    return min(max(1, round(n * fraction)), n - spare)


def path_hash(key: str) -> int:
    """Return 64 bits of the SHA-256 of a relative path."""
    return int.from_bytes(
        hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8], "big"
    )

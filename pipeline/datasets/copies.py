"""The same bytes under several names: found quickly, so that no copy is tested on after training.

n photos.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import UserError
from ..files import hash_file
from .records import SPLITS, Contents, Split

_PROBE = 4096  # bytes in the middle and at the end, where photos of one camera and size differ
_SHOWN = 3


def same_content(paths: Iterable[Path]) -> dict[Path, Path]:
    """Return for each path the first of those with its bytes, mostly itself.

    A file is hashed only if another one has its size and the same bytes in the middle and at the
    end. Empty files, and paths where no file can be read, are copies of nothing.
    """
    distinct = list(dict.fromkeys(paths))
    first = {path: path for path in distinct}
    with ThreadPoolExecutor(8) as pool:
        groups = [distinct]
        for key in (_size, _probe, _hash):
            suspects = [path for group in groups for path in group]
            by_key: defaultdict[object, list[Path]] = defaultdict(list)
            numbers = [number for number, group in enumerate(groups) for _ in group]
            for path, number, value in zip(suspects, numbers, pool.map(key, suspects)):
                if value:
                    by_key[number, value].append(path)
            groups = [group for group in by_key.values() if len(group) > 1]
    for group in groups:
        first.update(dict.fromkeys(group, group[0]))
    return first


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except (OSError, ValueError):
        return 0


def _probe(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(size // 2)
            middle = stream.read(_PROBE)
            stream.seek(max(0, size - _PROBE))
            return middle + stream.read(_PROBE)
    except OSError:
        return b""


def _hash(path: Path) -> str:
    try:
        return hash_file(path)
    except (OSError, UserError):
        return ""


def warn_of_copies(contents: Contents, class_names: Sequence[str]) -> list[str]:
    """Say which photos are in several splits or under several classes, one sentence each."""
    splits: defaultdict[Path, set[Split]] = defaultdict(set)
    labels: defaultdict[Path, set[int]] = defaultdict(set)
    for split in SPLITS:
        for item in contents.items.get(split, ()):
            splits[item.path].add(split)
            labels[item.path].add(item.label)
        for image in contents.captions.get(split, ()):
            splits[image.path].add(split)
    groups: defaultdict[Path, list[Path]] = defaultdict(list)
    for path, first in same_content(splits).items():
        groups[first].append(path)
    crossing: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    torn: list[str] = []
    for group in groups.values():
        inside = set().union(*(splits[path] for path in group))
        if len(inside) > 1:
            where = " and ".join(split for split in SPLITS if split in inside)
            crossing[where] += 1
            examples.setdefault(where, []).append(_equal(group))
        classes = sorted(set().union(*(labels[path] for path in group)))
        if len(classes) > 1:
            names = " and ".join(repr(class_names[i]) for i in classes[:_SHOWN])
            torn.append(f"{_equal(group)} under {names}")
    said = [
        f"the same {_photos(count)} in {where}: {_some(examples[where])}"
        for where, count in crossing.items()
    ]
    if torn:
        said.append(f"the same {_photos(len(torn))} under several classes: {_some(torn)}")
    return said


def _photos(count: int) -> str:
    return "photo is" if count == 1 else f"{count:,} photos are"


def _equal(group: Sequence[Path]) -> str:
    names = [f"{path.parent.name}/{path.name}" for path in group[:_SHOWN]]
    return " = ".join(names) + (" = …" if len(group) > _SHOWN else "")


def _some(texts: Sequence[str]) -> str:
    return "; ".join(texts[:_SHOWN]) + ("; …" if len(texts) > _SHOWN else "")

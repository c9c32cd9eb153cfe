"""Finding image files: folders listed once, patterns resolved once, class folders matched."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ..paths import inside_data
from .manifest import Manifest
from .records import IMAGE_SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """Return the images below a folder at any depth, sorted. Files are listed, not opened."""
    found: list[Path] = []
    for directory, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        found += [Path(directory, name) for name in sorted(files) if is_image_name(name)]
    return found


def has_image(folder: Path) -> bool:
    """Say whether there is an image below a folder, stopping at the first."""
    return any(any(map(is_image_name, files)) for _, _, files in os.walk(folder, followlinks=True))


def is_image_name(name: str) -> bool:
    """Say whether a file name is that of an image; hidden files are none."""
    return not name.startswith(".") and f".{name.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def fill(pattern: str, path: str, folder: str | None = None, **more: str) -> str:
    """Fill an image pattern for one listed path."""
    pure = PurePosixPath(path)
    parent = str(pure.parent) if folder is None else folder
    return pattern.format(path=path, folder=parent, name=pure.name, stem=pure.stem, **more)


def choose_pattern(
    root: Path, patterns: Sequence[str], samples: Iterable[tuple[str, str | None, dict[str, str]]]
) -> str:
    """Return the first pattern that leads to an existing file for any sample, else the first."""
    chosen = list(samples)
    for pattern in patterns:
        for path, folder, more in chosen:
            if inside_data(root, fill(pattern, path, folder, **more)).is_file():
                return pattern
    return patterns[0]


class ClassIndex:
    """Class ids by what people call a class on disk: folder, name, aliases.

    An exact match wins; otherwise case, spaces, underscores, hyphens and a leading number as in
    ``001.Black_footed_Albatross`` are ignored, unless two classes would then be the same.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.exact: dict[str, int] = {}
        loose: dict[str, set[int]] = {}
        for class_id, entry in enumerate(manifest.classes):
            for name in (entry.folder, entry.name, *entry.aliases):
                if name:
                    self.exact.setdefault(name, class_id)
                    loose.setdefault(plain(name), set()).add(class_id)
        for class_id, entry in enumerate(manifest.classes):
            if entry.folder:
                self.exact[entry.folder] = class_id
        self.loose = {name: ids.pop() for name, ids in loose.items() if len(ids) == 1}

    def find(self, name: str) -> int | None:
        """Return the class id, or None if the name fits no class or several."""
        if name in self.exact:
            return self.exact[name]
        return self.loose.get(plain(name))


def plain(name: str) -> str:
    """Return a name without case, spaces, underscores, hyphens, slashes and a leading number."""
    head, dot, tail = name.partition(".")
    if dot and head.isdigit():
        name = tail
    return "".join(c for c in name.casefold() if c not in " _-/'’")

"""Photos by a pattern such as ``photos/**/*.jpg``, by the rules that folders follow.

Each real file once, hidden files and folders and those of a system left out.
"""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from .images import FolderImages, is_hidden, is_image_name, look_through


def matching_images(pattern: str) -> FolderImages:
    """Return the images that match a pattern, and those in folders that match it.

    Args:
        pattern: as a shell knows them; ``**`` stands for any number of folders.
    """
    base, rest = _parts(pattern)
    if "**" in rest:
        # the folder is walked as any other, so that no link leads round in a circle
        walked = look_through(base)
        found = FolderImages(
            [path for path in walked.images if _fits(rest, path.relative_to(base).parts)]
        )
    else:
        found = _matched_by_name(base, pattern)
    found.images = _each_once(found.images)
    return found


def _parts(pattern: str) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that a pattern starts from, and its other parts."""
    parts = Path(pattern).parts
    plain = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:plain]), parts[plain:]


def _fits(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Say whether a file's path fits a pattern, or a folder that it lies in does.

    >>> _fits(("**", "*.jpg"), ("a", "b", "1.jpg")), _fits(("**", "b"), ("a", "b", "1.jpg"))
    (True, True)
    >>> _fits(("a", "**"), ("b", "1.jpg")), _fits(("**", "*.jpg"), ("1.png",))
    (False, False)
    """
    if not parts:
        return True
    if parts[0] == "**":
        rest = parts[1:]
        return not rest or any(_fits(rest, names[start:]) for start in range(len(names)))
    if not names or not fnmatch.fnmatchcase(names[0], parts[0]):
        return False
    return _fits(parts[1:], names[1:])


def _matched_by_name(base: Path, pattern: str) -> FolderImages:
    found = FolderImages()
    for name in sorted(glob.glob(pattern)):  # noqa: PTH207 (Path.glob takes no absolute one)
        path = Path(name)
        if any(map(is_hidden, path.relative_to(base).parts)):
            continue
        if path.is_dir():
            found.add(look_through(path))
        else:
            found.images += [path] if is_image_name(path.name) else []
            found.others.update([] if is_image_name(path.name) else [path.suffix.lower()])
    return found


def _each_once(paths: list[Path]) -> list[Path]:
    """Return each real file once, under its own name where that is among them."""
    chosen: dict[str, Path] = {}
    for path in paths:
        real = os.path.realpath(path)
        known = chosen.get(real)
        if known is None or (path.is_symlink() < known.is_symlink()):
            chosen[real] = path
    return sorted(chosen.values())

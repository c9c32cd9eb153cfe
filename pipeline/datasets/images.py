"""Finding image files: folders listed once, patterns resolved once, class folders matched."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..paths import inside_data
from ..raster import readable_suffixes, why_unread
from .manifest import Manifest

# Folders that a system or a program makes beside photos, mostly full of their thumbnails: of
# Synology, QNAP, macOS, Windows, Linux and Python. Those with a dot in front are hidden anyway.
_SYSTEM_FOLDERS = frozenset(
    ("@eadir", "#recycle", "@recycle", "@__thumb", "__macosx", "$recycle.bin", "lost+found")
    + ("system volume information", "__pycache__")
)
_SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
_SHOWN = 3


@dataclass
class FolderImages:
    """The images below a folder, and what lies beside them that is none, by reason."""

    images: list[Path] = field(default_factory=list)
    skipped: dict[str, list[Path]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    """Files that nobody would take for a picture, by suffix."""

    def add(self, more: FolderImages) -> None:
        """Take up what was found in another folder."""
        self.images += more.images
        for reason, paths in more.skipped.items():
            self.skipped.setdefault(reason, []).extend(paths)
        self.others += more.others

    def remarks(self) -> tuple[str, ...]:
        """Say what is left out and why, one sentence a reason."""
        said = []
        for reason, paths in sorted(self.skipped.items()):
            shown = ", ".join(path.name for path in paths[:_SHOWN])
            more = ", …" if len(paths) > _SHOWN else ""
            count = "1 file is" if len(paths) == 1 else f"{len(paths):,} files are"
            said.append(f"{count} left out: {reason} ({shown}{more})")
        if self.others:
            most = sorted(self.others.items(), key=lambda pair: (-pair[1], pair[0]))[:_SHOWN]
            counts = ", ".join(f"{n:,} {suffix}" for suffix, n in most)
            more = ", …" if len(self.others) > _SHOWN else ""
            said.append(f"left out, no pictures by their names: {counts}{more}")
        return tuple(said)


def list_images(folder: Path) -> list[Path]:
    """Return the images below a folder at any depth, sorted. Files are listed, not opened."""
    return look_through(folder).images


def look_through(folder: Path, within: Path | None = None) -> FolderImages:
    """List a folder at any depth: each real folder once, hidden and system folders left out.

    Args:
        within: a folder whose every real folder is looked through, one way or another: links that
            lead into it are not followed. By default ``folder``.
    """
    found = FolderImages()
    for files in _walk(folder, within or folder):
        for entry in files:
            _sort_in(entry, found)
    return found


def _sort_in(entry: os.DirEntry[str], found: FolderImages) -> None:
    if is_hidden(entry.name):
        return
    suffix = Path(entry.name).suffix.lower()
    if is_image_name(entry.name):
        if entry.is_file():
            found.images.append(Path(entry.path))
            return
        reason = "a link to nothing" if entry.is_symlink() else "no regular file"
    else:
        reason = why_unread(suffix)
        if not reason:
            found.others[suffix or "without a suffix"] += 1
            return
    found.skipped.setdefault(reason, []).append(Path(entry.path))


def has_image(folder: Path) -> bool:
    """Say whether there is an image below a folder, stopping at the first."""
    return any(
        is_image_name(entry.name) and entry.is_file()
        for files in _walk(folder, folder)
        for entry in files
    )


def _walk(top: Path, within: Path) -> Iterator[list[os.DirEntry[str]]]:
    """Yield the files of each folder, sorted; folders that are links come after real ones.

    A link is not followed to a folder that was seen, that contains the start, or that lies in
    ``within``, where it is met under its own name.
    """
    base, start = _real(within), _real(top)
    seen: set[Path] = {start}
    waiting: list[Path] = [top]
    links: list[Path] = []
    while waiting or links:
        if not waiting:
            link = links.pop(0)
            target = _real(link)
            if target in seen or start.is_relative_to(target) or _met_anyway(target, base):
                continue
            seen.add(target)
            waiting.append(link)
        folder = waiting.pop()
        files, folders = _entries(folder)
        yield files
        for entry in reversed(folders):
            if entry.is_symlink():
                links.insert(0, Path(entry.path))
                continue
            path = Path(entry.path)
            real = _real(path)
            if real not in seen:
                seen.add(real)
                waiting.append(path)


def _entries(folder: Path) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """Return the files and the folders of a folder, sorted, system folders left out."""
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError:  # gone meanwhile, or not ours to read
        return [], []
    folders = [entry for entry in ordered if entry.is_dir()]
    return (
        [entry for entry in ordered if not entry.is_dir()],
        [entry for entry in folders if not is_hidden(entry.name)],
    )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _met_anyway(target: Path, base: Path) -> bool:
    """Say whether a real folder lies below ``base`` on a way without hidden folders."""
    return target.is_relative_to(base) and not any(map(is_hidden, target.relative_to(base).parts))


def is_hidden(name: str) -> bool:
    """Say whether a file or folder is hidden, or one that a system makes beside photos."""
    lower = name.lower()
    return name.startswith(".") or lower in _SYSTEM_FOLDERS or lower in _SYSTEM_FILES


def is_image_name(name: str) -> bool:
    """Say whether a file name is that of an image which can be read here; hidden files are none."""
    return not is_hidden(name) and f".{name.rpartition('.')[2].lower()}" in readable_suffixes()


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, each real folder once.

    Hidden folders and those of a system are left out, and so is a link to a folder above, or to one
    that is here under its own name.
    """
    _, folders = _entries(folder)
    here = _real(folder)
    real = {_real(Path(entry.path)) for entry in folders if not entry.is_symlink()}
    names = []
    for entry in folders:
        if entry.is_symlink():
            target = _real(Path(entry.path))
            if target in real or here.is_relative_to(target):
                continue
            real.add(target)
        names.append(entry.name)
    return names


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

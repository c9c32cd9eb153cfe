"""A user's own photos under a name that is found again: added at the first use, reused later."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..files import require_regular, write_text
from .add import HEADER, add_dataset, to_yaml
from .catalogue import load_manifest, shipped_manifests, user_manifests
from .check import SHOWN, check_dataset
from .dataset import Dataset, open_dataset
from .manifest import Manifest
from .readers.found import Found
from .readers.recognise import look_at


@dataclass(frozen=True)
class OwnPhotos:
    """A data set that was found or added, and what there is to say about it.

    Attributes:
        dataset: the files. said: plain sentences, what was left out among them.
    """

    dataset: Dataset
    said: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How to ask for it later."""
        return self.dataset.manifest.name


def find_or_add(
    source: str | Path, root: str | Path | None = None, strict: bool = False
) -> OwnPhotos:
    """Return the data set of a folder or table, added if it is new, or one that is known by name.

    A manifest that was written before is reused with its edits: class names stay where folders
    stay, and new folders are new classes.

    Args:
        source: folder, table or name. root: folder of the files of a known data set.
        strict: stop at a photo that cannot be read, instead of leaving it out.

    Raises:
        UserError: there is neither, nothing in it is known, or it has no classes.
    """
    path = Path(source).expanduser()
    if not path.exists():
        return OwnPhotos(open_dataset(_known(str(source)), Path(root) if root else None))
    if root:
        raise UserError("--root is for a data set that is named, not for a folder or table.")
    found = look_at(path.resolve())
    _check_classes(found, source)
    for file in sorted(user_manifests().glob("*.yaml")):
        manifest = _readable(file, path, found)
        if manifest is not None and _is_of(manifest, found):
            return _again(manifest, file, found, source)
    name = next(name for name in _names(path) if _is_free(name))
    added = add_dataset(path, name, shares=None, strict=strict)
    photos = sum(some.get("labelled images", 0) for some in added.counts.values())
    said = [
        f"{source}: {photos:,} photos of {len(added.manifest.classes)} classes, now known as data"
        f" set {name!r}. Its class names are in {added.path}; edit them there."
    ]
    said += _left_out(added.unreadable)
    said += [_sentence(text) for text in (*added.warnings, *added.remarks)][:SHOWN]
    return OwnPhotos(Dataset(added.manifest, found.root, found.layout), tuple(said))


def _left_out(unreadable: Sequence[str]) -> list[str]:
    some = "; ".join(unreadable[:3]) + ("; …" if len(unreadable) > 3 else "")
    return [f"Left out: {len(unreadable):,} that cannot be read: {some}."] if unreadable else []


def _known(name: str) -> Manifest:
    if os.sep in name or name.startswith("."):
        raise UserError(f"There is no folder or table {name}.")
    return load_manifest(name)


def _check_classes(found: Found, source: str | Path) -> None:
    if "classification" not in found.tasks or not found.classes:
        raise UserError(
            f"{source} has captions but no classes to tell apart.",
            "Sort the photos into folders named like the classes; or train on captions: aape"
            " datasets add, then aape train-captions.",
        )
    if len(found.classes) < 2:
        raise UserError(
            f"{source} has one class only, {found.classes[0].name!r}: nothing to tell apart.",
            "Put the photos of each class into a folder of its own.",
        )


def _is_of(manifest: Manifest, found: Found) -> bool:
    """Say whether a manifest was written for what was found: the same place, read the same way."""
    if manifest.installed[:1] != [str(found.root)] or not manifest.layouts:
        return False
    layout = manifest.layouts[0]
    if layout.kind != "image_folders" or found.layout.kind != "image_folders":
        return layout == found.layout
    return (layout.splits, layout.flat) == (found.layout.splits, found.layout.flat)


def _again(manifest: Manifest, file: Path, found: Found, source: str | Path) -> OwnPhotos:
    names = {entry.folder or entry.name: entry for entry in manifest.classes}
    folders = [entry.folder or entry.name for entry in found.classes]
    said = []
    if set(names) != set(folders):
        now = [names.get(entry.folder or entry.name, entry) for entry in found.classes]
        changed = {"classes": now, "layouts": [found.layout]}
        manifest = manifest.model_copy(update=changed)
        write_text(file, HEADER + to_yaml(manifest))
        said.append(_differences(set(folders) - set(names), set(names) - set(folders)))
    check = check_dataset(manifest, found.root)
    photos = sum(some.get("labelled images", 0) for some in check.counts.values())
    said.insert(
        0,
        f"{source}: {photos:,} photos of {len(manifest.classes)} classes, known as data set"
        f" {manifest.name!r} since an earlier run ({file}).",
    )
    said += _left_out(check.unreadable)
    return OwnPhotos(Dataset(manifest, found.root, manifest.layouts[0]), tuple(said))


def _differences(new: set[str], gone: set[str]) -> str:
    parts = [
        f"{len(some)} {word}: {', '.join(sorted(some)[:5])}{' …' if len(some) > 5 else ''}"
        for word, some in (("new", new), ("gone", gone))
        if some
    ]
    return f"Its classes changed since then ({'; '.join(parts)})."


def _names(path: Path) -> Iterator[str]:
    """Yield names for a folder or table, the plainest first.

    >>> from itertools import islice
    >>> list(islice(_names(Path("My photos, 2024/")), 2))
    ['My-photos-2024', 'My-photos-2024-2']
    """
    whole = path.resolve()
    stem = whole.stem if whole.is_file() else whole.name
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:80] or "photos"
    yield plain
    number = 2
    while True:
        yield f"{plain}-{number}"
        number += 1


def _is_free(name: str) -> bool:
    return not any(
        (folder / f"{name}.yaml").exists() for folder in (shipped_manifests(), user_manifests())
    )


def _readable(file: Path, path: Path, found: Found) -> Manifest | None:
    """Return a manifest, or None where it is damaged and plainly of other photos.

    Raises:
        UserError: it is damaged, and called like these photos or names their folder.
    """
    try:
        return Manifest.from_yaml(file)
    except UserError as error:
        plain = next(_names(path))
        called = re.fullmatch(rf"{re.escape(plain)}(-\d+)?", file.stem) is not None
        if not called and os.fsencode(found.root) not in _content(file):
            return None
        message = " ".join(error.message.split())
        raise UserError(
            message,
            error.hint or f"Mend it, in UTF-8; or write it anew: aape datasets remove {file.stem}.",
        ) from error


def _content(file: Path) -> bytes:
    try:
        require_regular(file)
        return file.read_bytes()
    except (OSError, UserError):
        return b""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."

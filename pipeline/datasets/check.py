"""What of a data set is there, what is missing, and whether the counts are the published ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..counts import counted
from ..errors import UserError
from .copies import warn_of_copies
from .dataset import Dataset, candidate_roots, find_layout
from .manifest import Manifest
from .readers.image_paths import FileNames
from .records import SPLITS, Contents, Split
from .splits import OWN_SPLIT_NOTE
from .unreadable import find_unreadable

SHOWN = 20
LookedAt = Literal["names", "headers", "pixels"]
_HOW_SURE: dict[LookedAt, str] = {
    "names": " by the names of its files: with so many, --decode opens them",
    "headers": " by the headers and ends of its photos; --decode reads them whole",
    "pixels": "",
}
_OPENED = 200_000


@dataclass(frozen=True)
class Check:
    """The outcome of checking one root.

    Attributes:
        layout: title of the layout found, empty if none.
        missing: paths that are listed or needed and are not there.
        unreadable: images that cannot be decoded, with the reason.
        warnings: the same photo in several splits or under several classes.
        counts: per split, images and what hangs on them.
        differences: where the counts are not the published ones.
        remarks: what was left out on purpose, and how splits were made.
        looked_at: what was read of the photos: nothing but their names, headers and ends, or all
            pixels.
    """

    name: str
    root: str
    layout: str = ""
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    get: str = ""
    looked_at: LookedAt = "names"

    @property
    def complete(self) -> bool:
        """Whether every listed file is there and readable."""
        return bool(self.layout) and not self.missing and not self.unreadable

    def as_dict(self) -> dict[str, Any]:
        """Return everything, every missing file included, for ``--json``."""
        return {"complete": self.complete, **asdict(self)}

    def lines(self) -> list[str]:
        """Return the report for people: what is missing first, long lists cut."""
        out = []
        for what, entries in (("missing", self.missing), ("unreadable", self.unreadable)):
            out += [f"{what}: {entry}" for entry in entries[:SHOWN]]
            if len(entries) > SHOWN:
                out.append(f"{what}: {len(entries) - SHOWN:,} more, mostly in {_where(entries)}")
        out += [f"warning: {warning}" for warning in self.warnings]
        out += [f"counts differ: {difference}" for difference in self.differences]
        out += lines_of_counts(self.counts)
        out += [f"note: {remark}" for remark in self.remarks]
        if not self.complete and self.get:
            out.append(f"get it: {self.get}")
        out.append(f"{self.name} in {self.root}: {self._verdict()}")
        return out

    def _verdict(self) -> str:
        if not self.layout:
            return "no known layout, incomplete"
        wrong = [
            f"{counted(len(entries), 'photo', 'photos')} {what}"
            for entries, what in ((self.missing, "missing"), (self.unreadable, "unreadable"))
            if entries
        ]
        end = f"incomplete ({', '.join(wrong)})" if wrong else "complete"
        return f"layout {self.layout!r}, {end}{'' if wrong else _HOW_SURE[self.looked_at]}"


def lines_of_counts(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a line a split.

    >>> lines_of_counts({"train": {"captioned images": 1, "captions": 5}})
    ['train: 1 captioned image, 5 captions']
    """
    return [
        f"{split}: "
        + ", ".join(
            f"{n:,} {what.removesuffix('s') if n == 1 else what}" for what, n in some.items()
        )
        for split, some in counts.items()
    ]


def _where(paths: list[str]) -> str:
    """Name the folders that most of the missing paths are in."""
    folders = Counter(str(Path(path.partition(":")[0]).parent) for path in paths)
    return ", ".join(f"{folder} ({n:,})" for folder, n in folders.most_common(3))


def check_dataset(manifest: Manifest, root: Path | None = None, *, decode: bool = False) -> Check:
    """Compare the files below a root with the manifest.

    Every folder that holds listed files is listed once. Photos that cannot be read are named and
    not counted: headers and ends of all are looked at. Photos of the same size are compared, to
    find those that are in several splits or under several classes. Of more than 200,000 photos
    nothing is opened unless ``decode``.

    Args:
        manifest: what should be there.
        root: where to look; by default the places that :func:`open_dataset` tries.
        decode: decode every image, which finds damage inside, too.

    Raises:
        UserError: the root does not exist.
    """
    if root is not None and not root.is_dir():
        raise UserError(f"{root} is not a folder.")
    roots = [root] if root is not None else candidate_roots(manifest)
    how = where_to_get(manifest)
    for folder in roots:
        found = find_layout(folder, manifest)
        if found is not None:
            return _check_contents(Dataset(manifest, *found), how, decode)
    existing = next((folder for folder in roots if folder.is_dir()), roots[0])
    return Check(manifest.name, str(existing), missing=_needed(existing, manifest), get=how)


def where_to_get(manifest: Manifest) -> str:
    """Return in one line how to get a data set."""
    fetch = f"aape datasets fetch {manifest.name}" if manifest.downloads else ""
    known = (
        manifest.get if fetch in manifest.get else "; ".join(filter(None, [fetch, manifest.get]))
    )
    return known or manifest.homepage


def _needed(root: Path, manifest: Manifest) -> list[str]:
    """Return what each layout would need, since none is there."""
    missing = []
    for layout in manifest.layouts:
        absent = [mark for mark in layout.marks(root) if not (root / mark).exists()]
        missing += [f"{root / mark} (layout {layout.title!r})" for mark in absent]
    return missing


def _check_contents(dataset: Dataset, how: str, decode: bool) -> Check:
    contents, manifest = dataset.contents, dataset.manifest
    paths = _paths(contents)
    missing = absent_files(paths)
    gone = set(missing)
    looked_at: LookedAt = "pixels" if decode else "headers"
    if not decode and len(paths) > _OPENED:
        looked_at = "names"
    left_out, about = [], []
    if looked_at != "names":
        there = [path for path in paths if path not in gone]
        left_out, about = find_unreadable(there, decode=decode)
    contents = without(contents, {entry.path for entry in left_out})
    counts = {split: _counts(contents, split) for split in SPLITS}
    counts = {split: some for split, some in counts.items() if some}
    remarks = [*contents.remarks, *([contents.split_note] if contents.split_note else [])]
    remarks += _about_classes(contents, manifest)
    remarks += about
    copies = [] if looked_at == "names" else warn_of_copies(contents, manifest.class_names)
    if len(manifest.classes) == 1:
        remarks.append("there is one class only: nothing to tell apart")
    return Check(
        manifest.name,
        str(dataset.root),
        dataset.layout.title,
        [str(path) for path in missing],
        [str(entry) for entry in left_out],
        counts,
        copies,
        _differences(manifest, counts),
        remarks,
        how,
        looked_at,
    )


def _about_classes(contents: Contents, manifest: Manifest) -> list[str]:
    """Say which classes have no image, and which too few to be learnt and tested."""
    sizes = Counter(item.label for items in contents.items.values() for item in items)
    names = manifest.class_names
    remarks = []
    empty = [name for i, name in enumerate(names) if i not in sizes]
    if empty and sizes:
        remarks.append(f"{len(empty)} of {len(names)} classes have no image: {_some(empty)}")
    single = [names[i] for i, n in sorted(sizes.items()) if n == 1]
    if single and contents.split_note == OWN_SPLIT_NOTE:
        which = f"{len(single)} classes have" if len(single) > 1 else "one class has"
        remarks.append(
            f"{which} a single photo, which is trained on and leaves none to test: {_some(single)}"
        )
    return remarks


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (" …" if len(names) > 5 else "")


def _paths(contents: Contents) -> list[Path]:
    """Return every file that the contents name, once, in order."""
    of = (contents.items, contents.captions, contents.questions, contents.contrasts)
    return list(
        dict.fromkeys(entry.path for kind in of for entries in kind.values() for entry in entries)
    )


def absent_files(paths: list[Path]) -> list[Path]:
    """Return the paths that are no files, listing each folder once instead of asking per file."""
    names = FileNames()
    return [path for path in paths if names.find(path) != path]


def without(contents: Contents, paths: set[Path]) -> Contents:
    """Return contents without some files and what hangs on them."""
    if not paths:
        return contents

    def kept(kind: Mapping[Split, list[Any]]) -> dict[Split, list[Any]]:
        return {
            split: [entry for entry in entries if entry.path not in paths]
            for split, entries in kind.items()
        }

    return replace(
        contents,
        items=kept(contents.items),
        captions=kept(contents.captions),
        questions=kept(contents.questions),
        contrasts=kept(contents.contrasts),
    )


def _counts(contents: Contents, split: Any) -> dict[str, int]:
    captions = contents.captions.get(split, [])
    counts = {
        "labelled images": len(contents.items.get(split, [])),
        "captioned images": len(captions),
        "captions": sum(len(image.captions) for image in captions),
        "questions": len(contents.questions.get(split, [])),
        "caption contrasts": len(contents.contrasts.get(split, [])),
    }
    return {what: n for what, n in counts.items() if n}


def _differences(manifest: Manifest, counts: dict[str, dict[str, int]]) -> list[str]:
    """Compare with the published sizes."""
    differences = []
    for split, expected in manifest.expected().items():
        some = counts.get(split, {})
        if manifest.splits.unit == "questions":
            found = some.get("questions", 0)
        else:
            found = some.get("labelled images") or some.get("captioned images", 0)
        if found != expected:
            differences.append(
                f"{split} has {found:,} {manifest.splits.unit}, published are {expected:,}"
                f" ({manifest.splits.source})"
            )
    return differences

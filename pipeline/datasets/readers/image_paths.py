"""Where the photos that a table names lie, whoever wrote the table on which machine.

A table may name a photo by a path of Windows, by an absolute path of another machine, without its
suffix, or as Label Studio does, ``/data/upload/1/8f3c2d1a-0.jpg``. One rule is found for the whole
table when it is added, and kept in the manifest: a rule for each photo would find another photo of
the same name.
"""

from __future__ import annotations

import filecmp
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...errors import UserError
from ...paths import inside
from ..hints import SPLIT_WORDS
from ..images import is_image_name, list_images
from ..records import IMAGE_SUFFIXES, Split
from .columns import plain_column

_SAMPLE = 200
_SIBLINGS = ("..", "../images", "../Images", "../imgs", "../img", "../data", "../photos")
_PHOTO_WORDS = ("images", "image", "imgs", "img", "photos", "pictures", "jpg", "jpegs", "data")
_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")


class Placement(NamedTuple):
    """How the path of a photo follows from what a table says.

    Attributes:
        folder: the photos are below it; relative to the table.
        strip: so many leading parts of the path are left out.
        suffixes: tried in turn where the table leaves the suffix out.
        unprefixed: the eight digits that Label Studio puts before a name are cut.
    """

    folder: str = "."
    strip: int = 0
    suffixes: tuple[str, ...] = ()
    unprefixed: bool = False


class FileNames:
    """The regular files of folders, each folder listed once instead of asked for each file."""

    def __init__(self) -> None:
        self._listed: dict[str, dict[str, str]] = {}

    def find(self, path: Path) -> Path | None:
        """Return a path that exists, the case of its last part corrected, or None."""
        folder = str(path.parent)
        names = self._listed.get(folder)
        if names is None:
            names = self._listed[folder] = _regular_files(folder)
        if path.name in names:
            return path
        other = names.get(path.name.casefold())
        return path.with_name(other) if other else None


def _regular_files(folder: str) -> dict[str, str]:
    """Return the names of files, and by their names without case those that are unambiguous."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_file(entry)]
    except (OSError, ValueError):
        return {}
    plain = Counter(name.casefold() for name in names)
    found = {name.casefold(): name for name in names if plain[name.casefold()] == 1}
    return found | {name: name for name in names}


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


class Places:
    """The photos of one table by what it says of them.

    Args:
        folder: of the table.
        placement: the rule for the whole table.
        names: what is in folders, if some were listed before.
        root: no photo outside it can be named; none: a look that reads nothing.
    """

    def __init__(
        self,
        folder: Path,
        placement: Placement,
        names: FileNames | None = None,
        root: Path | None = None,
    ) -> None:
        self.base = folder / placement.folder
        self.placement = placement
        self.names = names or FileNames()
        self.root = root

    def path(self, text: str) -> Path:
        """Return where a photo is, or should be."""
        if self.placement == Placement(folder=self.placement.folder):
            as_said = self.names.find(self._below(text))
            if as_said is not None:
                return as_said
        parts = parts_of(text, unprefixed=self.placement.unprefixed)
        path = self._below(*parts[self.placement.strip :])
        found = self.names.find(path)
        for suffix in () if found else self.placement.suffixes:
            found = found or self.names.find(path.with_name(path.name + suffix))
        return found or path

    def _below(self, *parts: str) -> Path:
        path = Path(os.path.normpath(self.base.joinpath(*parts)))
        if self.root is None:
            return path
        return inside(
            self.root, path.as_posix() if path.is_absolute() else _relative(path, self.root)
        )


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def parts_of(text: str, *, unprefixed: bool = False) -> tuple[str, ...]:
    """Return the parts of a path that may have been written on Windows.

    >>> parts_of(r"C:\\\\photos\\\\0.jpg"), parts_of("a/8f3c2d1a-0.jpg", unprefixed=True)
    (('C:', 'photos', '0.jpg'), ('a', '0.jpg'))
    """
    parts = PurePosixPath(text.replace("\\", "/")).parts or (".",)
    if unprefixed:
        parts = (*parts[:-1], _UPLOAD_PREFIX.sub("", parts[-1], count=1))
    return parts


def folder_of_all(folder: Path, texts: Sequence[str]) -> Path:
    """Return the folder that holds a table and all photos that it names by absolute paths.

    Only files that are there, and are called like images, count.
    """
    names = FileNames()
    paths = (Path(os.path.normpath(text)) for text in texts)
    absolute = {path for path in paths if path.is_absolute()}
    folders = {p.parent for p in absolute if is_image_name(p.name) and names.find(p)}
    return Path(os.path.commonpath([folder, *folders]))


def find_placement(root: Path, texts: Sequence[str], table: str = "") -> Placement | None:
    """Return the rule by which most photos of a table are there, or None if none is.

    Where photos of the same names are in several folders, the folder that is called like the
    table is meant: ``train_images/`` of ``train.csv``.

    Args:
        root: the folder of the table.
        texts: what the table says of its photos.
        table: the name of the table.

    Raises:
        AmbiguousPhotos: several folders hold other photos of these names, and none fits better.
    """
    step = max(1, len(texts) // _SAMPLE)
    sample = list(dict.fromkeys(texts[::step]))[:_SAMPLE]
    names = FileNames()
    plain = Placement()
    direct = _hits(root, plain, sample, names)
    if direct == len(sample):
        return plain
    votes: Counter[Placement] = Counter({plain: direct})
    if root.is_dir():
        votes.update(_votes(root, sample))
    for folder in _SIBLINGS if not any(votes.values()) else ():
        votes[Placement(folder)] = _hits(root, Placement(folder), sample, names)
    # of equals the one that changes least
    best = min(
        votes, key=lambda place: (-votes[place], place.unprefixed, place.strip, place.folder)
    )
    if not votes[best]:
        return None
    pool = _fitting(best, votes, table)
    if len(pool) > 1 and not _same_photos(root, pool, sample, names):
        raise AmbiguousPhotos(table or str(root), [place.folder for place in pool])
    return pool[0]


class AmbiguousPhotos(UserError):
    """Several folders have photos of the names that a table gives, and other photos each."""

    def __init__(self, table: str, folders: Sequence[str]) -> None:
        shown = ", ".join(map(repr, folders[:4])) + (", …" if len(folders) > 4 else "")
        super().__init__(
            f"The photos that {table} names are in several folders, other ones each: {shown}.",
            "Write the folder into the paths of the table, or move the table into the folder that"
            " is meant.",
        )


def split_of_table(name: str) -> Split | None:
    """Return the split that the name of a table or folder has in it, or None.

    >>> split_of_table("trainLabels"), split_of_table("cars_train"), split_of_table("labels")
    ('train', 'train', None)
    """
    words = plain_column(name).split("_")
    splits: set[Split] = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return splits.pop() if len(splits) == 1 else None


def split_of_folder(folder: str) -> Split | None:
    """Return the split that the innermost folder of a path that names one stands for.

    >>> split_of_folder("data/train_images"), split_of_folder("test/images"), split_of_folder(".")
    ('train', 'test', None)
    """
    each = map(split_of_table, folder.split("/"))
    found: list[Split] = [split for split in each if split is not None]
    return found[-1] if found else None


def _fitting(best: Placement, votes: Counter[Placement], table: str) -> list[Placement]:
    """Return the rules that are as good as the best one, those that fit the table's name first.

    A folder that fits need not have all the photos that another has: what it lacks is missing.
    """
    stem = PurePosixPath(table).stem
    split = split_of_table(stem)

    def fits(place: Placement) -> bool:
        parts = [plain_column(part) for part in place.folder.split("/")]
        named = bool(stem) and plain_column(stem) in parts
        return named or (split is not None and split_of_folder(place.folder) == split)

    rivals = [
        place
        for place in sorted(votes, key=lambda place: (-votes[place], place.folder))
        if place == best._replace(folder=place.folder) and 2 * votes[place] >= votes[best]
    ]
    pool = [place for place in rivals if fits(place)] or rivals
    pool = [place for place in pool if votes[place] == votes[pool[0]]]
    own = [place for place in pool if place.folder == "."]
    # "images" beside "masks": the one that is called so
    called = [place for place in pool if plain_column(place.folder.split("/")[-1]) in _PHOTO_WORDS]
    return own or (called if len(called) == 1 else pool)


def _same_photos(
    root: Path, pool: Sequence[Placement], sample: Sequence[str], names: FileNames
) -> bool:
    """Say whether all rules lead to the same photos, or to copies of them."""
    every = [Places(root, place, names) for place in pool]
    for text in sample[:20]:
        first, *others = [names.find(places.path(text)) for places in every]
        for other in others:
            if first is None or other is None or not _equal(first, other):
                return False
    return True


def _equal(one: Path, other: Path) -> bool:
    try:
        return one == other or filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _hits(root: Path, placement: Placement, sample: Sequence[str], names: FileNames) -> int:
    places = Places(root, placement, names)
    return sum(names.find(places.path(text)) is not None for text in sample)


def _votes(root: Path, sample: Sequence[str]) -> Counter[Placement]:
    """Count for every rule how many photos it finds among those below the folder."""
    by_name: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    by_stem: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    for image in list_images(root):
        there = image.relative_to(root).parts
        by_name[there[-1].casefold()].append(there)
        by_stem[PurePosixPath(there[-1]).stem.casefold()].append(there)
    votes: Counter[Placement] = Counter()
    for text in sample:
        rules: set[Placement] = set()
        for unprefixed in (False, True):
            parts = parts_of(text, unprefixed=unprefixed)
            if unprefixed and parts == parts_of(text):
                continue
            complete = is_image_name(parts[-1])
            for there in (by_name if complete else by_stem).get(parts[-1].casefold(), ()):
                rules |= _rules(parts, there, complete, unprefixed)
        votes.update(rules)
    return votes


def _rules(
    parts: tuple[str, ...], there: tuple[str, ...], complete: bool, unprefixed: bool
) -> set[Placement]:
    """Return every rule that leads from what a table says to one file."""
    suffixes = () if complete else tuple(sorted(IMAGE_SUFFIXES))
    ends = (*there[:-1], there[-1] if complete else PurePosixPath(there[-1]).stem)
    rules = set()
    for k in range(1, min(len(parts), len(ends)) + 1):
        # the case of a file's name is corrected later, that of its folders is not
        if k > 1 and parts[-k] != ends[-k]:
            break
        folder = "/".join(ends[:-k]) or "."
        rules.add(Placement(folder, len(parts) - k, suffixes, unprefixed))
    return rules

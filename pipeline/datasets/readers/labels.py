"""Readers of labelled images: CoOp's split files, lists of photos, CUB, one folder a class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ...errors import UserError
from ...paths import inside, inside_data
from ..copies import same_content
from ..hints import split_word
from ..images import (
    ClassIndex,
    FolderImages,
    choose_pattern,
    fill,
    has_image,
    look_through,
    subfolders,
)
from ..manifest import Manifest
from ..records import SPLITS, Contents, Item, Split
from ..splits import OWN_SPLIT_NOTE, own_split
from .layouts import CoopSplit, Cub, ImageFolders, Listing
from .text_tables import decode, read_json_text


def read_coop_split(root: Path, layout: CoopSplit, manifest: Manifest) -> Contents:
    """Read CoOp's split file; its labels are the class ids of the manifest."""
    file = root / layout.split_file
    rows = read_json_text(file)
    try:
        samples = [(rows[split][0][0], None, {}) for split in SPLITS if rows.get(split)]
        pattern = choose_pattern(root, layout.images, samples)
        items: dict[Split, list[Item]] = {
            split: [
                Item(inside_data(root, fill(pattern, path)), int(label))
                for path, label, _ in rows[split]
            ]
            for split in SPLITS
            if split in rows
        }
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"{file} is not a split file of CoOp.") from error
    _check_range(file, items, manifest)
    return Contents(items)


def _check_range(file: Path, items: dict[Split, list[Item]], manifest: Manifest) -> None:
    labels = {item.label for split in items.values() for item in split}
    if min(labels, default=0) < 0:
        raise UserError(f"{file} has the class {min(labels)}.")
    if max(labels, default=0) >= len(manifest.classes):
        raise UserError(
            f"{file} has class {max(labels)}, but {manifest.name!r} has"
            f" {len(manifest.classes)} classes (0 to {len(manifest.classes) - 1})."
        )


def read_listing(root: Path, layout: Listing, manifest: Manifest) -> Contents:
    """Read lists of images; a class that the manifest does not know is an error."""
    index = ClassIndex(manifest)
    items: dict[Split, list[Item]] = {}
    pattern = ""
    for split, files in layout.lists.items():
        items[split] = []
        for file in files:
            lines = read_lines(root / file)
            keys = [_key_and_class(line, layout.label) for line in lines]
            pattern = pattern or choose_pattern(root, layout.images, [(keys[0][0], None, {})])
            for key, name in keys:
                label = _numbered(name) if layout.label == "number" else index.find(name)
                if label is None or not 0 <= label < len(manifest.classes):
                    raise UserError(f"{root / file} names {name!r}, no class of {manifest.name!r}.")
                items[split].append(Item(inside_data(root, fill(pattern, key)), label))
    return with_validation(root, items)


def _is_id(name: str) -> bool:
    """Say whether a name is a number that int() takes: no "²", and not thousands of digits."""
    return name.isdecimal() and len(name) < 10


def _numbered(text: str) -> int | None:
    """Return the class id that a number from 1 on means; nothing where it is no number."""
    try:
        return int(text) - 1
    except ValueError:
        return None


def _key_and_class(line: str, label: str) -> tuple[str, str]:
    """Split a line into the key of the image and what names its class."""
    key, _, rest = line.partition(" ")
    if label == "rest":
        return key, rest.strip()
    if label == "number":
        return key, rest.split()[0] if rest.split() else "0"
    key = key.lstrip("/")
    if label == "prefix":
        return key, key.rpartition("_")[0]
    return key, str(PurePosixPath(key).parent)


def read_cub(root: Path, layout: Cub, manifest: Manifest) -> Contents:
    """Read CUB's three files; its test split is the published one, val is made here."""
    base = root / layout.folder
    try:
        columns = _cub_columns(base)
    except ValueError as error:
        raise UserError(f"The text files of CUB-200-2011 in {base} do not agree.") from error
    items: dict[Split, list[Item]] = {"train": [], "test": []}
    try:
        for number, path in columns[0].items():
            split: Split = "train" if columns[2][number] == "1" else "test"
            items[split].append(Item(inside(base / "images", path), int(columns[1][number]) - 1))
    except (KeyError, ValueError) as error:
        raise UserError(f"The text files of CUB-200-2011 in {base} do not agree.") from error
    _check_range(base / "image_class_labels.txt", items, manifest)
    return with_validation(root, items)


def _cub_columns(base: Path) -> list[dict[str, str]]:
    names = ("images.txt", "image_class_labels.txt", "train_test_split.txt")
    pairs = [[line.split(maxsplit=1) for line in read_lines(base / name)] for name in names]
    if any(len(pair) != 2 for some in pairs for pair in some):
        raise ValueError("a line without a value")
    return [{pair[0]: pair[1] for pair in some} for some in pairs]


def read_image_folders(root: Path, layout: ImageFolders, manifest: Manifest) -> Contents:
    """Read one folder a class. A class folder that the manifest does not know is an error."""
    seen = FolderImages()
    if not layout.splits:
        found = _by_class(root / layout.flat, layout, manifest, seen)
        if layout.flat_split is not None:
            items = {layout.flat_split: [i for images in found.values() for i in images]}
            return Contents(items, remarks=seen.remarks())
        items = split_by_class(root, found, manifest.shares)
        return Contents(items, split_note=OWN_SPLIT_NOTE, remarks=seen.remarks())
    items: dict[Split, list[Item]] = {}
    for split, folder in layout.splits.items():
        if (root / folder).is_dir():
            found = _by_class(root / folder, layout, manifest, seen)
            items[split] = [item for images in found.values() for item in images]
    contents = with_validation(root, items) if layout.own_val else Contents(items)
    return replace(contents, remarks=seen.remarks())


def find_split_folders(root: Path) -> tuple[dict[Split, str], list[str]]:
    """Return the folders of a root that are splits; none if there is no train.

    A folder named like a split is one if it has folders with images in it: one that holds images
    itself may be a class, a kind of vehicle. Those are returned second.

    Raises:
        UserError: two folders are the same split.
    """
    found: defaultdict[Split, list[str]] = defaultdict(list)
    flat = []
    for name in subfolders(root):
        split = split_word(name)
        if split is None:
            continue
        if any(has_image(root / name / inner) for inner in subfolders(root / name)):
            found[split].append(name)
        elif has_image(root / name):
            flat.append(name)
    if "train" not in found:
        return {}, flat
    for split, names in found.items():
        if len(names) > 1:
            raise UserError(
                f"{root} has several folders for its split {split}: {', '.join(map(repr, names))}.",
                "Put their photos into one of them, or move one away.",
            )
    return {split: names[0] for split, names in found.items()}, flat


def _by_class(
    base: Path, layout: ImageFolders, manifest: Manifest, seen: FolderImages
) -> dict[int, list[Item]]:
    """Return the images of every class, classes and files sorted as CoOp sorts ImageNet.

    ``seen`` takes up what is left out.
    """
    index = ClassIndex(manifest)
    found: dict[int, list[Item]] = {}
    unknown = []
    nested = any("/" in entry.folder for entry in manifest.classes)
    listed = _folders_of(base, manifest) if nested else []
    for name in listed or [name for name in subfolders(base) if name not in layout.ignore]:
        if layout.class_folder == "id":
            label = int(name) if _is_id(name) and int(name) < len(manifest.classes) else None
        else:
            label = index.find(name)
        if label is None:
            unknown.append(name)
        elif inside(base, name).is_dir():
            listed = look_through(inside(base, name), within=base)
            seen.add(listed)
            # two folders whose names differ in case alone are one class
            found.setdefault(label, []).extend(Item(path, label) for path in listed.images)
    if unknown:
        raise UserError(
            f"{base} has folders that are no class of {manifest.name!r}:"
            f" {', '.join(map(repr, unknown[:5]))}{' …' if len(unknown) > 5 else ''}.",
            "Add them to the manifest, as names or aliases, or move them away.",
        )
    return found


def _folders_of(base: Path, manifest: Manifest) -> list[str]:
    """Return the folders of classes that lie in folders, each real folder once.

    An alias may be one: ``fold2/mug`` of ``fold1/mug``.
    """
    names = [
        name
        for entry in manifest.classes
        for name in (
            entry.folder or entry.name,
            *(alias for alias in entry.aliases if "/" in alias),
        )
    ]
    once: dict[object, str] = {}
    for name in names:
        try:
            status = inside(base, name).stat()
        except (OSError, UserError):
            continue
        once.setdefault((status.st_dev, status.st_ino) if status.st_ino else name, name)
    return list(once.values())


def split_by_class(
    root: Path,
    found: Mapping[int, list[Item]],
    shares: tuple[float, float, float],
    key: Callable[[Path, Item], str] | None = None,
) -> dict[Split, list[Item]]:
    """Split the images of every class by shares of train, val, test, the same on every machine.

    Copies of a photo, in other classes too, get the same split. ``key`` names an image
    independently of where it lies; by default its path below ``root``.
    """
    key = key or _key
    items: dict[Split, list[Item]] = {"train": [], "val": [], "test": []}
    first = same_content(item.path for images in found.values() for item in images)
    placed: dict[Hashable, Split] = {}
    for images in found.values():
        keys = [key(root, item) for item in images]
        groups = [first[item.path] for item in images]
        for item, split in zip(images, own_split(keys, shares, groups, placed)):
            items[split].append(item)
    return items


def with_validation(root: Path, items: dict[Split, list[Item]]) -> Contents:
    """Take one training image in five as validation where a data set has none."""
    if items.get("val") or not items.get("train"):
        return Contents(items)
    by_label: defaultdict[int, list[Item]] = defaultdict(list)
    for item in items["train"]:
        by_label[item.label].append(item)
    chosen = set()
    first = same_content(item.path for item in items["train"])
    placed: dict[Hashable, Split] = {}
    for images in by_label.values():
        keys = [_key(root, item) for item in images]
        splits = own_split(keys, (0.8, 0.2, 0.0), [first[item.path] for item in images], placed)
        chosen |= {item.path for item, split in zip(images, splits) if split == "val"}
    train = [item for item in items["train"] if item.path not in chosen]
    val = [item for item in items["train"] if item.path in chosen]
    note = f"{OWN_SPLIT_NOTE}: val is one in five of the training images"
    return Contents({**items, "train": train, "val": val}, split_note=note)


def _key(root: Path, item: Item) -> str:
    return item.path.relative_to(root).as_posix()


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty.

    Raises:
        UserError: the file is absent, is no text, or has no lines.
    """
    lines = [line.strip() for line in decode(path).split("\n")]
    lines = [line for line in lines if line]
    if not lines:
        raise UserError(f"{path} is empty.")
    return lines

"""Finding out what a folder or table of a user holds: which layout, which classes, which tasks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

from ...errors import UserError
from ...paths import is_file, is_folder
from ..hints import Hints, split_word
from ..images import has_image, is_image_name, list_images, subfolders
from ..records import Split
from .class_entries import entries_of, entry_of, same_name
from .found import Found
from .labels import find_split_folders
from .layouts import ImageFolders
from .recognise_captions import captioned_folders, coco, karpathy, numbers_beside, questions
from .recognise_hub import TAR_ENDINGS, hub_folder, web_dataset
from .recognise_tables import (
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    export_files,
    look_at_table,
    metadata_files,
    one_hot_files,
    tables_in_folder,
)

_PART = re.compile(
    r"(?:k[\W_]*)?(?:fold|part|batch|chunk|shard|subset|session)s?[\W_]*(?:\d+|[a-z])",
    re.IGNORECASE,
)
_FORMATS = (karpathy, coco, questions, one_hot_files, export_files)
_OTHERS = (hub_folder, web_dataset, metadata_files)


def look_at(source: Path, hints: Hints | None = None) -> Found:
    """Find out what a folder or file holds.

    Raises:
        UserError: it is absent or holds no images in a way that is known.
    """
    hints = hints or Hints()
    if is_file(source):
        return _look_at_file(source, hints)
    if not is_folder(source):
        raise UserError(f"{source} does not exist.")
    for look in (*_FORMATS, *_OTHERS):
        found = look(source, hints)
        if found is not None:
            return found
    folders = _class_folders(source)
    if folders is not None and len(folders.classes) > 1 and not hints.path_column:
        return folders
    found = captioned_folders(source, hints) or tables_in_folder(source, hints) or folders
    if found is not None:
        return found
    inner = _only_folder(source)
    if inner is not None:
        found = look_at(inner, hints)
        return Found(
            found.root,
            found.layout,
            found.classes,
            found.tasks,
            (f"everything is in the folder {inner.name!r}", *found.remarks),
        )
    raise _nothing_known(source)


def _look_at_file(source: Path, hints: Hints) -> Found:
    suffix = source.suffix.lower()
    if source.name.lower().endswith(TAR_ENDINGS):
        found = web_dataset(source, hints)
        if found is not None:
            return found
    if suffix not in (*TABLE_SUFFIXES, *TEXT_SUFFIXES):
        raise UserError(
            f"{source} is neither a folder nor a table.",
            f"Tables end in {', '.join(TABLE_SUFFIXES)}; WebDataset files in .tar.",
        )
    if suffix == ".json":
        found = _captions_in_json(source, hints)
        if found is not None:
            return found
    return look_at_table(source, hints)


def _captions_in_json(source: Path, hints: Hints) -> Found | None:
    """Karpathy's or COCO's file by its own name: its images are known by the folder."""
    found = karpathy(source.parent, hints, source.name)
    if found is not None:
        return found
    root = source.parent.parent if source.parent.name == "annotations" else source.parent
    found = coco(root, hints)
    listed = found is not None and source.relative_to(root).as_posix() in found.layout.marks(root)
    return found if listed else None


def _nothing_known(source: Path) -> UserError:
    if numbers_beside(source):
        return UserError(
            f"The text files beside the images of {source} hold numbers, as YOLO writes boxes: they"
            " are neither captions nor classes.",
            "Sort the images into folders named like the classes, or give a CSV with the columns"
            " path and label.",
        )
    splits = [name for name in subfolders(source) if split_word(name) and has_image(source / name)]
    if splits:
        return UserError(
            f"The folders {', '.join(map(repr, splits))} of {source} have images, but no folders of"
            " classes in them and no table beside them.",
            "Sort the images into folders named like the classes, or give a CSV with the columns"
            " path and label.",
        )
    if any(is_image_name(path.name) for path in source.iterdir()):
        return UserError(
            f"{source} has images, but neither a folder a class nor captions beside them.",
            "Sort them into folders named like the classes, put a .txt file beside each, or give"
            " a CSV with the columns path and label.",
        )
    return UserError(f"{source} has no images.", "Give a folder with images below it, or a table.")


def _only_folder(source: Path) -> Path | None:
    """Return the one folder in which everything is, as archives often have it."""
    folders = subfolders(source)
    files = [p.name for p in source.iterdir() if p.is_file() and not p.name.startswith(".")]
    texts = ("readme", "licen", "copying", "notice")
    if len(folders) != 1 or any(not name.lower().startswith(texts) for name in files):
        return None
    inner = source / folders[0]
    return inner if has_image(inner) else None


def _class_folders(root: Path) -> Found | None:
    splits, flat, remarks = _split_folders(root)
    bases = [root / folder for folder in splits.values()] or [root / flat]
    counts: Counter[str] = Counter()
    ignored: set[str] = set()
    deep: set[str] = set()
    of_parts: defaultdict[str, list[str]] = defaultdict(list)
    for base in bases:
        inner = {name: _leaves(base / name) for name in subfolders(base)}
        nested, parts = _are_classes_deep(inner), _are_parts(inner)
        for name, leaves in inner.items():
            if not leaves:
                ignored.add(name)
            elif parts:
                for leaf in leaves:
                    of_parts[same_name(leaf)].append(f"{name}/{leaf}")
            elif nested:
                counts.update({f"{name}/{leaf}": 1 for leaf in leaves})
                deep.add(name)
            else:
                counts[name] += 1
    ignored -= set(counts)
    if not counts and not of_parts:
        return None
    if not splits and counts and all(split_word(name.rpartition("/")[2]) for name in counts):
        return None  # train/*.jpg and test/*.jpg: no classes, but splits of what a table names
    if not splits and captioned_folders(root, Hints()) is not None:
        return None
    classes, merged = entries_of(counts, path=True)
    if of_parts:
        some = {name: list(dict.fromkeys(folders)) for name, folders in of_parts.items()}
        classes += [
            entry_of(folders[0], aliases=folders[1:]) for _, folders in sorted(some.items())
        ]
        outer = sorted({path.split("/")[0] for folders in some.values() for path in folders})
        names = ", ".join(repr(name) for name in outer[:3]) + (", …" if len(outer) > 3 else "")
        remarks.append(f"{names} are parts with the same folders, which are the classes")
    if deep:
        inner_names = ", ".join(entry.folder for entry in classes[:3])
        remarks.append(f"the inner folders are the classes: {inner_names}, …")
    remarks += [f"the folder {name!r} has no images and is no class" for name in sorted(ignored)]
    layout = ImageFolders(
        kind="image_folders",
        splits=splits,
        flat=flat,
        ignore=sorted(ignored),
        own_val=bool(splits) and "val" not in splits,
    )
    return Found(root, layout, classes, ["classification"], (*remarks, *merged))


def _are_parts(inner: dict[str, list[str]]) -> bool:
    """Say whether folders are parts of a whole, such as ``fold1`` and ``fold2``, by their names.

    Each has most of the classes that any of them has: a small one may lack a rare class.
    """
    filled = {name: {same_name(leaf) for leaf in some} for name, some in inner.items() if some}
    every = set().union(*filled.values()) if filled else set()
    if len(filled) < 2 or len(every) < 2 or "." in every:
        return False
    named = all(_PART.fullmatch(name) for name in filled)
    return named and all(2 * len(some) >= len(every) for some in filled.values())


def _leaves(folder: Path) -> list[str]:
    """Return the folders that directly hold images, relative to one of them, which is "."."""
    return sorted({path.parent.relative_to(folder).as_posix() for path in list_images(folder)})


def _are_classes_deep(inner: dict[str, list[str]]) -> bool:
    """Say whether the classes are folders in folders: all equally deep, and each name once.

    ``mug/2023``, ``mug/2024`` and ``plate/2023`` are two classes with folders in them.
    """
    leaves = [leaf for some in inner.values() for leaf in some]
    names = [leaf.rpartition("/")[2].casefold() for leaf in leaves]
    depths = {leaf.count("/") for leaf in leaves}
    if not leaves or "." in leaves or len(depths) != 1 or len(set(names)) != len(names):
        return False
    dates = [name for name in names if re.fullmatch(r"[\d\W_]+", name)]
    return len(leaves) > 1 and not dates and not any(split_word(name) for name in names)


def _split_folders(root: Path) -> tuple[dict[Split, str], str, list[str]]:
    """Return split folders, or else the folder of the classes, and remarks."""
    splits, flat_ones = find_split_folders(root)
    remarks = [
        f"the folder {name!r} has images, but no folders of classes: left out"
        for name in (flat_ones if splits else ())
    ]
    if set(splits) == {"train"}:
        remarks.append("there is no test folder: the training images are split here")
        return {}, splits["train"], remarks
    if set(splits) == {"train", "val"}:
        remarks.append(f"there is no test folder: {splits['val']!r} is the test split")
        return {"train": splits["train"], "test": splits["val"]}, "", remarks
    return splits, "" if splits else ".", remarks

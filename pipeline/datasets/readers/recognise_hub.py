"""Finding out what Parquet, Arrow and WebDataset files with images in them hold."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ..hints import Hints, resolve_split
from ..manifest import ClassEntry
from ..records import Split
from .arrow_files import (
    ARROW_SUFFIXES,
    class_names,
    hugging_face_features,
    read_arrow,
    read_schema,
)
from .cells import labels_of, raise_without_labels, refuse_joined, several_labels, text_of
from .class_entries import entries_of, numbered_entries
from .columns import CAPTIONS, IMAGES, LABELS, candidates, find_columns, named
from .found import Found, tasks_of
from .hub_files import hub_files
from .layouts import HuggingFace, WebDataset
from .text_tables import decode
from .web_dataset import CAPTION_MEMBERS, LABEL_MEMBERS, part, samples

if TYPE_CHECKING:
    import pyarrow as pa

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
_FIRST_SAMPLES = 1000


def is_image_column(field: pa.Field) -> bool:
    """Say whether a column holds images: bytes with a path, or bytes in a column of that name."""
    if str(field.type).startswith("struct<") and field.type.get_field_index("bytes") >= 0:
        return True
    binary = str(field.type) in ("binary", "large_binary", "binary_view")
    return binary and bool(candidates([field.name], IMAGES))


def refuse_several_photos(schema: pa.Schema, file: Path) -> None:
    """Refuse a table with lists of photos, where none of its columns has one photo a row.

    Raises:
        UserError: it is such a table.
    """
    for field in schema:
        kind = field.type
        several = str(kind).startswith(("list<", "large_list<", "fixed_size_list<"))
        if several and is_image_column(kind.value_field.with_name(field.name.removesuffix("s"))):
            raise UserError(
                f"{file} has several photos a row, in the column {field.name!r}.",
                "Write one row a photo.",
            )


def hub_folder(root: Path, hints: Hints) -> Found | None:
    """A data set folder of the hub: images in Parquet or Arrow files."""
    if not any(path.suffix.lower() in ARROW_SUFFIXES for path in root.rglob("*")):
        return None
    files, remarks = hub_files(root, ARROW_SUFFIXES, hints)
    return _described(root, files, hints, remarks) if files else None


def hub_of_file(file: Path, hints: Hints) -> Found:
    """One Parquet or Arrow file with images in it."""
    found = _described(file.parent, {"train": [file.name]}, hints, [])
    if found is None:
        raise UserError(f"{file} has no images.")
    return found


def _described(
    root: Path, files: dict[Split, list[str]], hints: Hints, remarks: list[str]
) -> Found | None:
    every = [root / file for some in files.values() for file in some]
    schema = read_schema(every[0])
    fields = [field for field in schema if is_image_column(field)]
    if hints.path_column:
        name = named(hints.path_column, schema.names, every[0])
        fields = [field for field in schema if field.name == name]
    if not fields:
        refuse_several_photos(schema, every[0])
        return None
    # of several, the one that is called an image
    image = next(iter(candidates([f.name for f in fields], IMAGES)), fields[0].name)
    features = hugging_face_features(schema)
    columns = find_columns(schema.names, hints, every[0], image)
    label = columns.label or _class_label(features, image)
    if not (label or columns.captions):
        raise UserError(
            f"{every[0]} has images, but no labels and no captions that are known by their names.",
            f"Name them with --label-column or --caption-column; its columns:"
            f" {', '.join(schema.names)}.",
        )
    names = class_names(features, label) if label else []
    counts, splits = _values(every, label, columns.split, names)
    remarks = remarks + _others(features, label, hints) if counts else list(remarks)
    split = columns.split if len(splits) > 1 or len(files) == 1 else ""
    for value in sorted(splits) if split else ():
        resolve_split(value, hints.split_as, every[0])
    if label and not counts:
        raise_without_labels(
            every[0].parent if len(every) > 1 else every[0], label, columns.captions
        )
        label, names = "", []
        remarks.append(f"no row has a {columns.label!r}: captions alone")
    classes: list[ClassEntry] = []
    if label:
        place = every[0]
        found = numbered_entries(names, place) if names else entries_of(counts, path=False)
        classes, merged = found
        remarks += merged
    layout = HuggingFace(
        kind="hugging_face",
        files=files,
        image=image,
        label=label,
        label_ids=bool(names),
        caption=list(columns.captions),
        split=split,
        split_as=dict(hints.split_as) if split else {},
    )
    tasks = tasks_of(labels=bool(label), captions=bool(columns.captions))
    return Found(root, layout, classes, tasks, tuple(remarks))


def _class_label(features: dict[str, Any], image: str) -> str:
    return next((name for name in features if name != image and class_names(features, name)), "")


def _others(features: dict[str, Any], label: str, hints: Hints) -> list[str]:
    """Say that there are other columns of classes than the one taken."""
    others = [name for name in features if name != label and class_names(features, name)]
    if not others or hints.label_column:
        return []
    return [f"the classes are those of {label!r}; --label-column may name {', '.join(others)}"]


def _values(
    every: list[Path], label: str, split: str, names: list[str]
) -> tuple[Counter[str], set[str]]:
    """Count the labels of files, and gather their splits.

    Raises:
        UserError: a row has several labels.
    """
    counts: Counter[str] = Counter()
    splits: set[str] = set()
    wanted = [name for name in (label, split) if name]
    for file in every if wanted else ():
        table = read_arrow(file, wanted)
        splits |= {text_of(value) for value in table[split].to_pylist()} if split else set()
        for number, value in enumerate(table[label].to_pylist() if label else ()):
            labels = labels_of(value)
            if len(labels) > 1:
                known = dict(zip(map(str, range(len(names))), names))
                shown = [known.get(name, name) for name in labels]
                raise several_labels(file, len(table), f"in row {number}", shown)
            counts.update(labels)
    refuse_joined(every[0] if len(every) == 1 else every[0].parent, {} if names else counts)
    return counts, splits - {""}


def web_dataset(root: Path, hints: Hints) -> Found | None:
    """A folder with tar files of WebDataset, or one such file."""
    if root.is_file():
        return _of_tars(root.parent, {"train": [root.name]}, hints, [])
    if not any(path.name.lower().endswith(TAR_ENDINGS) for path in root.rglob("*")):
        return None
    files, remarks = hub_files(root, TAR_ENDINGS, hints)
    return _of_tars(root, files, hints, remarks)


def _of_tars(root: Path, files: dict[Split, list[str]], hints: Hints, remarks: list[str]) -> Found:
    every = [root / file for some in files.values() for file in some]
    label = caption = ""
    for _, sample in islice((s for file in every for s in samples(file)), _FIRST_SAMPLES):
        label = label or _member(sample, hints.label_column, LABEL_MEMBERS, LABELS)
        asked = next(iter(hints.caption_columns), "")
        caption = caption or _member(sample, asked, CAPTION_MEMBERS, CAPTIONS)
    if not (label or caption):
        raise UserError(
            f"{every[0]} has images, but neither labels (.cls) nor captions (.txt) of WebDataset"
            " beside them.",
            "Unpack it, and add the folder of the images.",
        )
    counts: Counter[str] = Counter()
    for file in every if label else ():
        for name, sample in samples(file):
            labels = labels_of(part(sample, label))
            if len(labels) > 1:
                raise several_labels(file, 1, name, labels)
            counts.update(labels)
    refuse_joined(root, counts)
    names = _names_beside(root)
    by_number = (
        bool(names)
        and bool(counts)
        and all(n.isdecimal() and len(n) < 10 and int(n) < len(names) for n in counts)
    )
    if label and not counts:
        raise_without_labels(root, label, caption)
        label, by_number = "", False
    if by_number:
        classes, merged = numbered_entries(names, root)
    else:
        classes, merged = entries_of(counts, path=False)
    layout = WebDataset(
        kind="web_dataset", files=files, label=label, label_ids=by_number, caption=caption
    )
    return Found(
        root,
        layout,
        classes,
        tasks_of(labels=bool(label), captions=bool(caption)),
        (*remarks, *merged),
    )


def _member(
    sample: dict[str, Any], asked: str, members: tuple[str, ...], keys: tuple[str, ...]
) -> str:
    """Return what of a sample is its label or caption: a member, or a key of its JSON."""
    if asked:
        options = [asked, f"json:{asked}"]
    else:
        options = [*members, *(f"json:{key}" for key in keys)]
    return next((option for option in options if part(sample, option) not in (None, "")), "")


def _names_beside(root: Path) -> list[str]:
    """Return the class names that come with numbered classes, as CLIP benchmark has them."""
    for name in ("classnames.txt", "classes.txt", "labels.txt"):
        if (root / name).is_file():
            # a blank line within would shift the numbers; at the end it is none
            return [line.strip() for line in decode(root / name).rstrip().split("\n")]
    return []

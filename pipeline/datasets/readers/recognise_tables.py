"""Finding out what tables hold: columns, where their photos lie, classes, splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..hints import Hints, split_word
from ..images import subfolders
from ..manifest import ClassEntry
from ..records import Split
from .arrow_files import ARROW_SUFFIXES, read_schema
from .cells import labels_of, raise_without_labels, refuse_joined, several_labels, text_of
from .class_entries import entries_of
from .columns import Columns, find_columns, named, no_columns
from .exports import form_of_export
from .found import Found, tasks_of
from .image_paths import AmbiguousPhotos, Placement, folder_of_all
from .layouts import Table
from .placed_tables import contradictions, images_of_files, placed, without_climbing
from .recognise_hub import hub_of_file, is_image_column, refuse_several_photos
from .tables import is_marked, read_rows
from .text_tables import TextTable, read_json_text

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow")
TEXT_SUFFIXES = (".txt", ".token")  # Flickr8k's captions.txt and Flickr8k.token.txt
_HUB_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_SPLIT_LISTS: dict[Split, str] = {"train": "train", "val": "dev", "test": "test"}


def look_at_table(file: Path, hints: Hints) -> Found:
    """Find out what one table holds.

    Raises:
        UserError: it names no photos that are there, or neither labels nor captions.
    """
    if file.suffix.lower() in ARROW_SUFFIXES and _has_images(file, hints):
        return hub_of_file(file, hints)
    found = tables(file.parent, {file.name: None}, hints)
    beside = [
        path.name
        for path in sorted(file.parent.glob(f"*{file.suffix}"))
        if path != file and split_word(path.stem) and split_word(file.stem)
    ]
    if not beside:
        return found
    remark = f"{', '.join(beside)} beside it was not read: add the folder to use all of them"
    return Found(found.root, found.layout, found.classes, found.tasks, (*found.remarks, remark))


def _has_images(file: Path, hints: Hints) -> bool:
    schema = read_schema(file)
    if hints.path_column:
        return is_image_column(schema.field(named(hints.path_column, schema.names, file)))
    if not any(is_image_column(field) for field in schema):
        refuse_several_photos(schema, file)
    return any(is_image_column(field) for field in schema)


def metadata_files(root: Path, hints: Hints) -> Found | None:
    """A folder of images with ``metadata.csv`` or ``.jsonl`` in it or in its split folders."""
    for name in _HUB_NAMES:
        if (root / name).is_file():
            return look_at_table(root / name, hints)
        in_splits = _in_split_folders(root, name)
        if in_splits:
            return tables(root, in_splits, hints)
    return None


def one_hot_files(root: Path, hints: Hints) -> Found | None:
    """Roboflow's export for classification: ``_classes.csv`` in every split folder."""
    name = "_classes.csv"
    if (root / name).is_file():
        return look_at_table(root / name, hints)
    files = _in_split_folders(root, name)
    return tables(root, files, hints) if files else None


def _in_split_folders(root: Path, name: str) -> dict[str, Split]:
    """Return the files of one name in the folders that are named like splits."""
    files = {f"{folder}/{name}": folder for folder in subfolders(root)}
    return _splits_of({file: word for file, word in files.items() if (root / file).is_file()})


def _splits_of(words: Mapping[str, str]) -> dict[str, Split]:
    """Return the splits of the files for which a word means one."""
    found: dict[str, Split] = {}
    for file, word in words.items():
        split = split_word(word)
        if split is not None:
            found[file] = split
    return found


def export_files(root: Path, hints: Hints) -> Found | None:
    """FiftyOne's ``labels.json`` or ``samples.json``, in the folder or in its split folders."""
    for name in ("labels.json", "samples.json"):
        files: Mapping[str, Split | None] = _in_split_folders(root, name)
        if (root / name).is_file():
            files = {name: None}
        forms = {form_of_export(read_json_text(root / file)) for file in files}
        if files and all(forms):
            return tables(root, files, hints)
    return None


def tables_in_folder(root: Path, hints: Hints) -> Found | None:
    """The one table of a folder, or the tables that are named like its splits.

    Raises:
        UserError: several tables could be meant.
    """
    usable: dict[str, Found] = {}
    refused: list[UserError] = []
    names = [
        path.name
        for path in sorted(root.iterdir())
        if path.is_file() and path.suffix.lower() in (*TABLE_SUFFIXES, *TEXT_SUFFIXES)
    ]
    for name in names:
        try:
            usable[name] = tables(root, {name: None}, hints)
        except UserError as error:
            if Path(name).suffix.lower() in TABLE_SUFFIXES:
                refused.append(error)
    of_splits = _splits_of({name: Path(name).stem for name in usable})
    if len(usable) > 1 and len(of_splits) == len(usable):
        return tables(root, of_splits, hints)
    if len(usable) > 1:
        first = next(iter(usable))
        raise UserError(
            f"{root} has several tables: {', '.join(usable)}.",
            f"Name the one that is meant: aape datasets add {root / first}",
        )
    if usable:
        name, found = next(iter(usable.items()))
        remarks = (f"read from the table {name}", *found.remarks)
        return Found(found.root, found.layout, found.classes, found.tasks, remarks)
    doubtful = [error for error in refused if isinstance(error, AmbiguousPhotos)]
    if len(refused) == 1 or doubtful:
        raise (doubtful or refused)[0]
    return None


def tables(root: Path, files: Mapping[str, Split | None], hints: Hints) -> Found:
    """Describe tables of the same columns; each may hold one split.

    Raises:
        UserError: they name no photos that are there, or neither labels nor captions.
    """
    where = root / next(iter(files)) if len(files) == 1 else root
    forms = {_form(root / file) for file in files}
    form = forms.pop() if len(forms) == 1 else "rows"
    asked = "" if form == "rows" or hints.label_column == "none" else hints.label_column
    if form != "rows":
        hints = replace(hints, label_column="")  # of the tool, not of the rows made of its file
    read = [read_rows(root / file, form, asked) for file in files]
    rows = [row for table in read for row in table.rows]
    names = list(dict.fromkeys(str(name) for table in read for name in table.columns))
    bases = [(root / file).parent for file in files]
    path, placements = placed([root / file for file in files], read, names, hints, where)
    placement = placements[0]
    holder = _holder(root, [text_of(row.get(path)) for row in rows], placement)
    columns = find_columns(names, hints, where, path)
    if form != "rows":
        split = "split" if any(row.get("split") for row in rows) else ""
        columns = Columns("path", "label", (), split)
    one_hot: list[str] = []
    if not columns.label and not columns.captions:
        one_hot = one_hot_columns(read, [n for n in names if n not in columns.wanted])
    if not (columns.label or columns.captions or one_hot):
        raise no_columns(where, names, has_path=True)
    classes, remarks = _classes(rows, columns, one_hot, where, path)
    if not classes:  # captions alone
        columns, one_hot = replace(columns, label=""), []
    remarks = [*remarks, *contradictions(files, placements)]
    if holder != root:
        remarks = [*remarks, f"the photos lie outside the folder of the table, in {holder}"]
        placement = placement._replace(folder=without_climbing(placement.folder))
        lists = {}
    else:
        lists = _split_lists(root)
    climbed = holder != root and placement.folder != "."
    beside = any(base != root for base in bases) or (holder != root and not climbed)
    files = {_posix(root / file, holder): split for file, split in files.items()}
    split_of: dict[str, Split] = {}
    for file, split in files.items():
        if split is not None and not columns.split:
            split_of[file] = split
    layout = Table(
        kind="table",
        files=list(files),
        form=form,  # pyright: ignore[reportArgumentType]
        path=path,
        label=columns.label and (read[0].label or columns.label),
        one_hot=one_hot,
        caption=list(columns.captions),
        split=columns.split,
        split_as=dict(hints.split_as),
        split_of=split_of,
        split_lists={} if columns.split or split_of else lists,
        beside=beside,
        images=placement.folder,
        images_of=images_of_files(list(files), placements, climbing=holder != root),
        strip=placement.strip,
        suffixes=list(placement.suffixes),
        unprefixed=placement.unprefixed,
        skip_missing=hints.skip_missing,
    )
    labels = bool(columns.label or one_hot)
    tasks = tasks_of(labels=labels, captions=bool(columns.captions))
    return Found(holder, layout, classes, tasks, tuple(remarks))


def _holder(root: Path, texts: Sequence[str], placement: Placement) -> Path:
    """Return the folder that holds the table and its photos, which is the root of the data set."""
    if placement.folder.startswith(".."):
        return root.parent
    return folder_of_all(root, texts) if placement == Placement() else root


def _posix(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _form(file: Path) -> str:
    if file.suffix.lower() != ".json":
        return "rows"
    return form_of_export(read_json_text(file)) or "rows"


def one_hot_columns(read: Sequence[TextTable], names: list[str]) -> list[str]:
    """Return the columns that hold nothing but 0 and 1, if they are at least two."""
    marks = ("0", "1", "0.0", "1.0", "true", "false")
    found = [
        name
        for name in names
        if all(text_of(row.get(name)).casefold() in marks for table in read for row in table.rows)
    ]
    return found if len(found) > 1 else []


def _classes(
    rows: Sequence[dict[str, Any]], columns: Columns, one_hot: list[str], where: Path, path: str
) -> tuple[list[ClassEntry], list[str]]:
    counts: Counter[str] = Counter()
    several: list[tuple[str, list[str]]] = []
    for row in rows:
        if columns.split and not text_of(row.get(columns.split)):
            continue
        if one_hot:
            labels = [name for name in one_hot if is_marked(row.get(name))]
        else:
            labels = labels_of(row.get(columns.label)) if columns.label else []
        counts.update(labels)
        if len(set(labels)) > 1:
            several.append((text_of(row.get(path)), labels))
    if several:
        raise several_labels(where, len(several), *several[0])
    if not one_hot:
        refuse_joined(where, counts)
    if not counts and (columns.label or one_hot):
        raise_without_labels(where, columns.label or "class", columns.captions)
        return [], [f"no row has a {columns.label or 'class'!r}: captions alone"]
    return entries_of(counts, path=False)


def _split_lists(root: Path) -> dict[Split, str]:
    """Return Flickr8k's lists, ``Flickr_8k.trainImages.txt`` and so on, if all are there."""
    found: dict[Split, str] = {}
    for split, word in _SPLIT_LISTS.items():
        files = sorted(root.glob(f"*.{word}Images.txt"))
        if files:
            found[split] = files[0].name
    return found if len(found) == len(_SPLIT_LISTS) else {}

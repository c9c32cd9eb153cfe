"""Reader of tables with a path and a label, or captions, a row; one item a photo comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...counts import counted
from ...errors import UserError
from ..hints import LEFT_OUT, resolve_split
from ..images import ClassIndex
from ..manifest import Manifest
from ..records import Contents, Split
from .arrow_files import ARROW_SUFFIXES, read_arrow
from .cells import captions_of, labels_of, text_of
from .exports import rows_of_export
from .gather import Photos
from .image_paths import FileNames, Placement, Places
from .layouts import Table
from .text_tables import TextTable, decode, read_text_table

ONE_OF_EACH = ("0", "0.0", "", "false")  # what a column that is named like a class says of others


def read_rows(path: Path, form: str = "rows", label: str = "") -> TextTable:
    """Read a table whatever its format, as its suffix says.

    Args:
        path: the table. form: rows, or the export of a tool.
        label: of an export, what holds its labels; they are in the column ``label``.

    Raises:
        UserError: the file is absent, damaged, or no table.
    """
    if form != "rows":
        return rows_of_export(path, form, label)
    if path.suffix.lower() in ARROW_SUFFIXES:
        table = read_arrow(path)
        return TextTable(table.column_names, table.to_pylist())
    return read_text_table(path)


def read_table(root: Path, layout: Table, manifest: Manifest) -> Contents:
    """Read paths with labels or captions. A label is a class name or a class id.

    Rows of one photo are one item; what a row lacks is counted in the remarks.
    """
    photos = Photos(
        manifest,
        root / layout.files[0] if len(layout.files) == 1 else root,
        labelled=bool(layout.label or layout.one_hot),
        captioned=bool(layout.caption),
    )
    names = FileNames()
    listed = _listed_splits(root, layout)
    index = ClassIndex(manifest)
    missing = 0
    label = layout.label
    if layout.form != "rows":
        layout = layout.model_copy(update={"label": "label"})
    for file in layout.files:
        table = read_rows(root / file, layout.form, label)
        photos.remarks += table.remarks
        _require(root / file, table, layout)
        base = (root / file).parent if layout.beside else root
        folder = layout.images_of.get(file, layout.images)
        placement = Placement(folder, layout.strip, tuple(layout.suffixes), layout.unprefixed)
        places = Places(base, placement, names, root)
        for row in table.rows:
            said = text_of(row.get(layout.path))
            if not said:
                raise UserError(f"{root / file} has a row without a {layout.path!r}.")
            path = places.path(said)
            if layout.skip_missing and names.find(path) is None:
                missing += 1
                continue
            photos.add(
                path,
                labels=_labels(row, layout, index, manifest, root / file),
                captions=_captions(row, layout),
                split=_split(row, file, layout, listed, path, root),
                image_id=_image_id(path, places.base, root),
            )
    if missing:
        what = "whose photo is not there"
        photos.remarks.append(
            counted(missing, f"row {what} was", f"rows {what} were") + " left out"
        )
    return photos.contents()


def _require(file: Path, table: TextTable, layout: Table) -> None:
    wanted = [layout.path, layout.label, layout.split, *layout.caption, *layout.one_hot]
    for name in wanted:
        if name and name not in table.columns:
            raise UserError(
                f"{file} has no column {name!r}.",
                f"Its columns: {', '.join(map(str, table.columns))}.",
            )


def _image_id(path: Path, *bases: Path) -> str:
    """Return the path below the first base that it is below, else the whole of it."""
    for base in bases:
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.as_posix()


def _labels(
    row: dict[str, Any], layout: Table, index: ClassIndex, manifest: Manifest, file: Path
) -> list[int]:
    if layout.one_hot:
        said = [name for name in layout.one_hot if is_marked(row.get(name))]
    else:
        said = labels_of(row.get(layout.label)) if layout.label else []
    return [label_id(name, index, manifest, file) for name in said]


def is_marked(value: Any) -> bool:
    """Say whether a cell below the name of a class says that a photo belongs to it."""
    return text_of(value).casefold() not in ONE_OF_EACH


def _captions(row: dict[str, Any], layout: Table) -> list[str]:
    return [text for name in layout.caption for text in captions_of(row.get(name))]


def label_id(name: str, index: ClassIndex, manifest: Manifest, file: Path) -> int:
    """Return the class id of a label that is a name or, where it fits no name, an id.

    Raises:
        UserError: it is neither.
    """
    label = index.find(name)
    if label is None and name.isdecimal() and len(name) < 10 and int(name) < len(manifest.classes):
        label = int(name)
    if label is None:
        raise UserError(f"{file} has the label {name!r}, which is no class of {manifest.name!r}.")
    return label


def _listed_splits(root: Path, layout: Table) -> dict[str, Split]:
    """Return the split of each photo by its name, from lists as Flickr8k has them."""
    found: dict[str, Split] = {}
    for split, file in layout.split_lists.items():
        lines = decode(root / file).split("\n")
        found.update({Path(line.strip()).name: split for line in lines if line.strip()})
    return found


def _split(
    row: dict[str, Any],
    file: str,
    layout: Table,
    listed: dict[str, Split],
    path: Path,
    root: Path,
) -> Any:
    """Return the split of a row: by its column, by the list of its photo, by its file."""
    if layout.split:
        said = text_of(row.get(layout.split))
        return resolve_split(said, layout.split_as, root / file) if said else LEFT_OUT
    if listed:
        return listed.get(path.name, LEFT_OUT)
    return layout.split_of.get(file)

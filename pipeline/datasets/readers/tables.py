"""Readers of tables: paths and labels in CSV, JSON lines or Parquet; Hugging Face folders."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ...files import atomic_path, cache_folder, hash_value, read_json, write_json
from ...paths import inside
from ..images import ClassIndex
from ..manifest import Manifest
from ..records import CaptionedImage, Contents, Item, Split
from ..splits import OWN_SPLIT_NOTE, own_split
from .labels import SPLIT_FOLDERS, split_by_class
from .layouts import HuggingFace, Table

if TYPE_CHECKING:
    import pyarrow as pa


def read_schema(path: Path) -> pa.Schema:
    """Read the columns of a table and its metadata without its rows where the format allows.

    Raises:
        UserError: the file is absent or of another format.
    """
    from pyarrow import ArrowException, parquet

    if path.suffix.lower() != ".parquet":
        return read_arrow(path).schema
    try:
        return parquet.read_schema(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except ArrowException as error:
        raise UserError(f"{path} cannot be read as a table: {error}.") from error


def read_arrow(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a table whatever its format, as its suffix says: csv, tsv, jsonl, parquet, arrow.

    Raises:
        UserError: the file is absent, of another format, or lacks a column.
    """
    import pyarrow as pa

    try:
        if columns is not None and path.suffix.lower() == ".parquet":
            _require(columns, read_schema(path).names, path)
        table = _read_any(path, columns)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except pa.ArrowException as error:
        raise UserError(f"{path} cannot be read as a table: {error}.") from error
    if columns is None:
        return table
    _require(columns, table.column_names, path)
    return table.select(columns)


def _require(columns: list[str], present: list[str], path: Path) -> None:
    absent = [name for name in columns if name not in present]
    if absent:
        raise UserError(
            f"{path} has no column {', '.join(map(repr, absent))}.",
            f"Its columns: {', '.join(present)}.",
        )


def _read_any(path: Path, columns: list[str] | None) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv, ipc, parquet
    from pyarrow import json as arrow_json

    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        options = csv.ParseOptions(
            delimiter="\t" if suffix == ".tsv" else ",", newlines_in_values=True
        )
        # a column of digits or of "yes" and "no" is still a column of names
        header = csv.open_csv(path, parse_options=options).schema.names
        convert = csv.ConvertOptions(
            column_types={name: pa.string() for name in header}, strings_can_be_null=True
        )
        return csv.read_csv(path, parse_options=options, convert_options=convert)
    if suffix in (".jsonl", ".ndjson"):
        return arrow_json.read_json(path)
    if suffix == ".arrow":
        with pa.memory_map(str(path)) as source:
            try:
                return ipc.open_stream(source).read_all()
            except pa.ArrowInvalid:
                return ipc.open_file(source).read_all()
    if suffix == ".parquet":
        return parquet.read_table(path, columns=columns)
    raise UserError(f"{path} is no table.", "Known: csv, tsv, jsonl, parquet, arrow.")


def read_table(root: Path, layout: Table, manifest: Manifest) -> Contents:
    """Read paths with labels or captions. A label is a class name or a class id."""
    index = ClassIndex(manifest)
    wanted = [name for name in (layout.path, layout.label, layout.caption, layout.split) if name]
    items: dict[Split, list[Item]] = {"train": [], "val": [], "test": []}
    captions: dict[Path, list[str]] = {}
    of_path: dict[Path, Split] = {}
    by_class: defaultdict[int, list[Item]] = defaultdict(list)
    for file in layout.files:
        for row in read_arrow(root / file, wanted).to_pylist():
            name = _text(row[layout.path], layout.path, root / file)
            path = _photo(root, layout, name)
            split = _split(row[layout.split], root / file) if layout.split else None
            if split is not None:
                of_path[path] = split
            if layout.caption:
                captions.setdefault(path, []).append(str(row[layout.caption]))
            if layout.label:
                item = Item(path, _label(row[layout.label], index, manifest, root / file))
                by_class[item.label].append(item)
                if split is not None:
                    items[split].append(item)
    if not layout.split:
        items = split_by_class(root, dict(by_class), manifest.shares)
        of_path = {item.path: split for split, some in items.items() for item in some}
        others = [path for path in captions if path not in of_path]
        names = [str(path.relative_to(root)) for path in others]
        of_path |= dict(zip(others, own_split(names, manifest.shares)))
    captioned: dict[Split, list[CaptionedImage]] = {"train": [], "val": [], "test": []}
    for path, texts in captions.items():
        image_id = os.path.relpath(path, root / layout.images)
        captioned[of_path[path]].append(CaptionedImage(image_id, path, tuple(texts)))
    note = "" if layout.split else OWN_SPLIT_NOTE
    return Contents(items, captioned, split_note=note)


def _photo(root: Path, layout: Table, name: str) -> Path:
    """Return a photo of a table; a path may climb out of ``images``, but not out of the root."""
    return inside(root, str(PurePosixPath(layout.images, name)))


def _text(value: Any, column: str, file: Path) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{file} has a row without a {column!r}.")
    return value


def _split(value: Any, file: Path) -> Split:
    split = SPLIT_FOLDERS.get(str(value).strip().lower())
    if split is None:
        raise UserError(f"{file} has the split {value!r}.", "Known: train, val, test.")
    return split


def _label(value: Any, index: ClassIndex, manifest: Manifest, file: Path) -> int:
    """Return the class id of a label that is a name or, where it fits no name, an id."""
    label = index.find(str(value))
    if label is None and str(value).isdigit() and int(value) < len(manifest.classes):
        label = int(value)
    if label is None:
        raise _unknown_label(value, manifest, file)
    return label


def _unknown_label(value: Any, manifest: Manifest, file: Path) -> UserError:
    return UserError(f"{file} has the label {value!r}, which is no class of {manifest.name!r}.")


def read_hugging_face(root: Path, layout: HuggingFace, manifest: Manifest) -> Contents:
    """Read images kept as bytes in tables; they are written to the cache once, named by content."""
    index = ClassIndex(manifest)
    items: dict[Split, list[Item]] = {}
    captions: dict[Split, list[CaptionedImage]] = {}
    for split, files in layout.files.items():
        for file in files:
            for path, row in _extracted(root / file, layout):
                if layout.label:
                    value = row[layout.label]
                    label = value if layout.label_ids else index.find(str(value))
                    if not isinstance(label, int) or not 0 <= label < len(manifest.classes):
                        raise _unknown_label(value, manifest, root / file)
                    items.setdefault(split, []).append(Item(path, label))
                if layout.caption:
                    texts = row[layout.caption]
                    texts = (texts,) if isinstance(texts, str) else tuple(texts)
                    captions.setdefault(split, []).append(CaptionedImage(path.stem, path, texts))
    if set(items) != {"train"}:
        return Contents(items, captions)
    by_class: defaultdict[int, list[Item]] = defaultdict(list)
    for item in items["train"]:
        by_class[item.label].append(item)
    split_items = split_by_class(
        root, by_class, manifest.shares, key=lambda _, item: item.path.name
    )
    split_of: dict[Path, Split] = {
        item.path: split for split, some in split_items.items() for item in some
    }
    split_captions: dict[Split, list[CaptionedImage]] = {"train": [], "val": [], "test": []}
    for image in captions.get("train", []):
        split_captions[split_of[image.path]].append(image)
    return Contents(split_items, split_captions, split_note=OWN_SPLIT_NOTE)


def _extracted(file: Path, layout: HuggingFace) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the path of every image of a file with its other columns.

    The images of a file are written once; its index, written last, says that they all are there.
    """
    others = [name for name in (layout.label, layout.caption) if name]
    status = file.stat()
    key = hash_value([str(file.resolve()), status.st_size, status.st_mtime_ns, layout.image])[:16]
    folder = cache_folder("images", f"{file.stem[:40]}-{key}")
    index = folder / "index.json"
    if index.exists():
        rows = read_arrow(file, others).to_pylist()
        yield from zip((folder / name for name in read_json(index)), rows)
        return
    paths: list[Path] = []
    for batch in read_arrow(file, [layout.image, *others]).to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            paths.append(_image_path(row[layout.image], len(paths), folder, file))
            yield paths[-1], row
    write_json(index, [os.path.relpath(path, folder) for path in paths])


def _image_path(value: Any, number: int, folder: Path, file: Path) -> Path:
    """Return where an image lies, writing it first if it is kept as bytes.

    The name begins with the hash of the content, so that an own split depends on content alone.
    """
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        name = f"{hashlib.sha256(content).hexdigest()[:16]}-{number:07d}{_suffix(content)}"
        path = folder / name
        if not path.exists():
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
        return path
    name = value.get("path") if isinstance(value, dict) else value
    if not isinstance(name, str) or not inside(file.parent, name).is_file():
        raise UserError(f"{file} has an image with neither bytes nor a file: {name!r}.")
    return inside(file.parent, name)


def _suffix(content: bytes) -> str:
    """Return the file suffix of an image by its first bytes."""
    starts = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp"}
    for start, suffix in starts.items():
        if content.startswith(start):
            return suffix
    return ".webp" if content[8:12] == b"WEBP" else ".img"


def hugging_face_features(schema: pa.Schema) -> dict[str, Any]:
    """Return the features that the ``datasets`` library wrote into the metadata of a table."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return {}
    try:
        return json.loads(metadata)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}

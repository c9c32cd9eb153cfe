"""Reader of Hugging Face folders: images in Parquet or Arrow files, one item a photo."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...counts import counted
from ...errors import UserError
from ...files import cache_folder, hash_value, read_json, unreadable, write_json
from ..hints import LEFT_OUT, SplitOrNone, resolve_split
from ..images import ClassIndex
from ..manifest import Manifest
from ..records import Contents, Split
from .arrow_files import read_arrow
from .cells import captions_of, labels_of, several_labels, text_of
from .embedded_images import image_of_cell
from .gather import Photos
from .layouts import HuggingFace
from .tables import label_id

# The same photo under two classes happens; from this share of all photos on it is meant.
_SEVERAL_ON_PURPOSE = 0.1


def read_hugging_face(root: Path, layout: HuggingFace, manifest: Manifest) -> Contents:
    """Read images kept as bytes in tables; they are written to the cache once, named by content.

    Rows of the same bytes, class and split are one photo, whose captions are gathered.
    """
    photos = Photos(manifest, root, labelled=bool(layout.label), captioned=bool(layout.caption))
    index = ClassIndex(manifest)
    labels_by_photo: defaultdict[Path, set[int]] = defaultdict(set)
    without = 0
    for file_split, files in layout.files.items():
        for file in files:
            for path, row in _extracted(root / file, layout):
                if path is None:
                    without += 1
                    continue
                labels = _labels(row, layout, index, manifest, root / file)
                split = _split(row, layout, file_split, root / file)
                labels_by_photo[path].update(labels)
                photos.add(
                    path,
                    labels=labels,
                    captions=[t for name in layout.caption for t in captions_of(row[name])],
                    split=split,
                    image_id=path.stem,
                    key=path.name,
                    group=(path, split, *labels),
                )
    _refuse_several(labels_by_photo, manifest, root)
    if without:
        what = counted(without, "row without an image was", "rows without an image were")
        photos.remarks.append(f"{what} left out")
    return photos.contents()


def _labels(
    row: dict[str, Any], layout: HuggingFace, index: ClassIndex, manifest: Manifest, file: Path
) -> list[int]:
    if not layout.label:
        return []
    said = labels_of(row[layout.label])
    if len(said) > 1:
        raise several_labels(file, 1, "row", said)
    if not layout.label_ids:
        return [label_id(name, index, manifest, file) for name in said]
    ids = [int(name) for name in said if name.isdecimal() and len(name) < 10]
    if len(ids) != len(said) or any(i >= len(manifest.classes) for i in ids):
        raise UserError(
            f"{file} has the label {said[0]!r}, which is no class of {manifest.name!r}."
        )
    return ids


def _split(row: dict[str, Any], layout: HuggingFace, file_split: Split, file: Path) -> SplitOrNone:
    if not layout.split:
        return file_split
    said = text_of(row[layout.split])
    return resolve_split(said, layout.split_as, file) if said else LEFT_OUT


def _refuse_several(labels: dict[Path, set[int]], manifest: Manifest, root: Path) -> None:
    several = [path for path, ids in labels.items() if len(ids) > 1]
    if len(several) > _SEVERAL_ON_PURPOSE * len(labels):
        names = [manifest.class_names[i] for i in sorted(labels[several[0]])]
        raise several_labels(root, len(several), several[0].name, names)


def _extracted(file: Path, layout: HuggingFace) -> Iterator[tuple[Path | None, dict[str, Any]]]:
    """Yield the path of every image of a file, None where a row has none, and its other columns.

    The images of a file are written once; its index, written last, says that they all are there.
    """
    others = [name for name in (layout.label, *layout.caption, layout.split) if name]
    others = list(dict.fromkeys(others))
    try:
        status = file.stat()
    except OSError as error:
        raise unreadable(error, file) from error
    # the version: names are content alone, so that rows of one photo meet
    key = [2, str(file.resolve()), status.st_size, status.st_mtime_ns, layout.image]
    folder = cache_folder("images", f"{file.stem[:40]}-{hash_value(key)[:16]}")
    index = folder / "index.json"
    if index.exists():
        names = read_json(index)
        rows = read_arrow(file, others).to_pylist() if others else [{}] * len(names)
        for name, row in zip(names, rows):
            yield (Path(os.path.normpath(folder / name)) if name else None), row
        return
    written: list[str | None] = []
    table = read_arrow(file, list(dict.fromkeys([layout.image, *others])))
    for batch in table.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            path = image_of_cell(row[layout.image], folder, file)
            written.append(os.path.relpath(path, folder) if path else None)
            yield path, row
    write_json(index, written)

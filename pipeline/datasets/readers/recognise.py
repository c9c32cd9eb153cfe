"""Finding out what a folder or table of a user holds: which layout, which classes, which tasks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...paths import inside
from ..images import has_image, is_image_name, list_images, subfolders
from ..manifest import ClassEntry, Task
from ..records import Split
from .labels import SPLIT_FOLDERS, find_split_folders
from .layouts import (
    CaptionedFolders,
    CocoCaptions,
    HuggingFace,
    ImageFolders,
    Layout,
    QuestionTable,
    Table,
)
from .tables import hugging_face_features, read_arrow, read_schema

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
PATH_COLUMNS = ("path", "file_name", "filename", "image_path", "filepath", "file", "image")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "labels")
CAPTION_COLUMNS = ("caption", "captions", "text", "description")
TEXT_TASKS: list[Task] = ["retrieval", "captioning"]


@dataclass(frozen=True)
class Found:
    """What a folder or table turned out to be."""

    root: Path
    layout: Layout
    classes: list[ClassEntry]
    tasks: list[Task]
    remarks: tuple[str, ...] = ()


def look_at(source: Path) -> Found:
    """Find out what a folder or file holds.

    Raises:
        UserError: it is absent or holds no images in a way that is known.
    """
    if source.is_file():
        if source.suffix.lower() not in TABLE_SUFFIXES:
            raise UserError(
                f"{source} is neither a folder nor a table.",
                f"Tables end in {', '.join(TABLE_SUFFIXES)}.",
            )
        return _table(source)
    if not source.is_dir():
        raise UserError(f"{source} does not exist.")
    for look in (_coco, _questions, _hugging_face, _metadata, _class_folders, _captioned):
        found = look(source)
        if found is not None:
            return found
    tables = sorted(path for path in source.iterdir() if path.suffix.lower() in TABLE_SUFFIXES)
    if tables:
        raise UserError(
            f"{source} is not a layout that is known, but has the table {tables[0].name}.",
            f"Name the table itself: aape datasets add {tables[0]}",
        )
    if any(is_image_name(path.name) for path in source.iterdir()):
        raise UserError(
            f"{source} has images, but neither a folder a class nor captions beside them.",
            "Sort them into folders named like the classes, put a .txt file beside each, or give"
            " a CSV with the columns path and label.",
        )
    raise UserError(f"{source} has no images.", "Give a folder with images below it, or a table.")


def readable_name(name: str) -> str:
    """Turn the name of a folder into that of a class: no leading number, no underscores."""
    return re.sub(r"^\d+\.(?=[^\W\d])", "", name).replace("_", " ").strip() or name


def entry_of(folder: str, *, path: bool = True) -> ClassEntry:
    """Return the class entry of a folder, whose path may have several parts, or of a label.

    Raises:
        UserError: the name is not valid text.
    """
    try:
        folder.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"The name {folder!r} is not valid UTF-8.", "Rename it.") from error
    name = readable_name(folder.rpartition("/")[2] if path else folder)
    return ClassEntry(name=name, folder="" if name == folder else folder)


def _class_folders(root: Path) -> Found | None:
    splits, flat, remarks = _split_folders(root)
    bases = [root / folder for folder in splits.values()] or [root / flat]
    classes: dict[str, bool] = {}
    for base in bases:
        for folder in subfolders(base):
            classes[folder] = classes.get(folder, False) or has_image(base / folder)
    names = sorted(folder for folder, full in classes.items() if full)
    if not names or (not splits and _captioned(root) is not None):
        return None
    ignored = sorted(folder for folder, full in classes.items() if not full)
    remarks += [f"the folder {folder!r} has no images and is no class" for folder in ignored]
    layout = ImageFolders(
        kind="image_folders",
        splits=splits,
        flat=flat,
        ignore=ignored,
        own_val=bool(splits) and "val" not in splits,
    )
    return Found(root, layout, [entry_of(n) for n in names], ["classification"], tuple(remarks))


def _split_folders(root: Path) -> tuple[dict[Split, str], str, list[str]]:
    """Return split folders, or else the folder of the classes, and remarks."""
    splits = find_split_folders(root)
    if set(splits) == {"train"}:
        return {}, splits["train"], ["there is no test folder: the training images are split here"]
    if set(splits) == {"train", "val"}:
        remark = f"there is no test folder: {splits['val']!r} is the test split"
        return {"train": splits["train"], "test": splits["val"]}, "", [remark]
    return splits, "" if splits else ".", []


def _captioned(root: Path) -> Found | None:
    images = list_images(root)
    captioned = [path for path in images if path.with_suffix(".txt").is_file()]
    if not captioned or len(captioned) < len(images) / 2:
        return None
    folders = sorted({path.parent.relative_to(root).as_posix() for path in captioned})
    classes = [entry_of(folder) for folder in folders] if "." not in folders else []
    classes = [
        entry if entry.folder else ClassEntry(name=entry.name, folder=entry.name)
        for entry in classes
    ]
    tasks = _tasks("folder" if len(classes) > 1 else "", "text")
    layout = CaptionedFolders(kind="captioned_folders")
    return Found(root, layout, classes if len(classes) > 1 else [], tasks)


def _coco(root: Path) -> Found | None:
    files = sorted((root / "annotations").glob("captions_*.json"))
    annotations: dict[Split, str] = {}
    for file in files:
        release = file.stem.rpartition("_")[2]
        word = re.sub(r"\d+$", "", release)
        split: Split | None = SPLIT_FOLDERS.get(word)
        if split is not None:
            annotations.setdefault(split, file.relative_to(root).as_posix())
    remarks: tuple[str, ...] = ()
    if "val" in annotations and "test" not in annotations:
        annotations["test"] = annotations.pop("val")
        remarks = (f"{annotations['test']} is the test split",)
    if not annotations:
        return None
    layout = CocoCaptions(
        kind="coco_captions",
        annotations=annotations,
        images=["{release}/{name}", "images/{release}/{name}", "images/{name}", "{name}"],
    )
    return Found(root, layout, [], TEXT_TASKS, remarks)


def _metadata(root: Path) -> Found | None:
    """A folder of images with ``metadata.csv`` or ``metadata.jsonl``, as the hub suggests."""
    for name in ("metadata.csv", "metadata.jsonl", "metadata.parquet"):
        if (root / name).is_file():
            return _table(root / name)
    return None


def _tasks(label: str, caption: str) -> list[Task]:
    tasks: list[Task] = []
    if label:
        tasks.append("classification")
    return tasks + TEXT_TASKS if caption else tasks


def _column(names: list[str], known: tuple[str, ...]) -> str:
    return next((name for name in known if name in names), "")


def _values(column: str, file: Path) -> list[Any]:
    values = read_arrow(file, [column])[column].unique().to_pylist()
    if None in values:
        raise UserError(f"{file} has rows without a {column!r}.", "Fill or remove them.")
    return values


def _questions(root: Path) -> Found | None:
    """Tables with image_id, question and answer, named like splits."""
    files: dict[Split, str] = {}
    for file in sorted(root.glob("*.csv")):
        split = SPLIT_FOLDERS.get(file.stem.rpartition("_")[2].lower())
        if split is not None and {"image_id", "question", "answer"} <= set(read_schema(file).names):
            files.setdefault(split, file.name)
    if not files:
        return None
    remarks: tuple[str, ...] = ()
    if "test" not in files and "val" in files:
        files["test"] = files.pop("val")
        remarks = (f"{files['test']} is the test split",)
    patterns = [f"{folder}{{stem}}{end}" for folder in ("images/", "") for end in (".png", ".jpg")]
    layout = QuestionTable(kind="question_table", files=files, images=patterns)
    return Found(root, layout, [], ["vqa"], remarks)


def _table(file: Path) -> Found:
    schema = read_schema(file)
    path = _column(schema.names, PATH_COLUMNS)
    label = _column(schema.names, LABEL_COLUMNS)
    caption = _column(schema.names, CAPTION_COLUMNS)
    if path and "struct" in str(schema.field(path).type):
        found = _from_arrow(file.parent, {"train": [file.name]})
        if found is not None:
            return found
    if not path or not (label or caption):
        raise UserError(
            f"{file} has no columns for paths and labels.",
            f"Name them path and label; its columns: {', '.join(schema.names)}.",
        )
    first = _values(path, file)
    if not first:
        raise UserError(f"{file} has no rows.")
    if not any(inside(file.parent, str(value)).is_file() for value in first[:100]):
        raise UserError(
            f"None of the first images of {file} is there ({file.parent / str(first[0])}, …).",
            "Paths are relative to the folder of the table.",
        )
    layout = Table(
        kind="table",
        files=[file.name],
        path=path,
        label=label,
        caption=caption,
        split="split" if "split" in schema.names else "",
    )
    names = sorted(map(str, _values(label, file))) if label else []
    return Found(
        file.parent, layout, [entry_of(name, path=False) for name in names], _tasks(label, caption)
    )


def _hugging_face(root: Path) -> Found | None:
    files: dict[Split, list[str]] = {}
    for file in sorted([*root.rglob("*.parquet"), *root.rglob("*.arrow")]):
        relative = file.relative_to(root)
        if relative.name.startswith("cache-"):
            continue
        word = re.split(r"[-_.]", relative.stem)[0]
        split: Split = SPLIT_FOLDERS.get(relative.parent.name) or SPLIT_FOLDERS.get(word) or "train"
        files.setdefault(split, []).append(relative.as_posix())
    return _from_arrow(root, files) if files else None


def _from_arrow(root: Path, files: dict[Split, list[str]]) -> Found | None:
    first = root / next(iter(files.values()))[0]
    schema = read_schema(first)
    images = [f.name for f in schema if f.name == "image" or str(f.type).startswith("struct<bytes")]
    if not images:
        return None
    label = _column(schema.names, LABEL_COLUMNS)
    caption = _column(schema.names, CAPTION_COLUMNS)
    if not (label or caption):
        raise UserError(
            f"{first} has images, but no labels and no captions.",
            f"Its columns: {', '.join(schema.names)}.",
        )
    names = hugging_face_features(schema).get(label, {}).get("names", []) if label else []
    classes = [entry_of(str(name), path=False) for name in names]
    if label and not classes:
        every = [root / file for some in files.values() for file in some]
        seen = {str(value) for file in every for value in _values(label, file)}
        classes = [entry_of(value, path=False) for value in sorted(seen)]
    layout = HuggingFace(
        kind="hugging_face",
        files=files,
        image=images[0],
        label=label,
        label_ids=bool(names),
        caption=caption,
    )
    return Found(root, layout, classes, _tasks(label, caption))

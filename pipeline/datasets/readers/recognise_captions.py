"""Finding captions and questions: COCO, Karpathy's splits, text files beside images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..hints import Hints, split_word
from ..images import list_images
from ..records import Split
from .class_entries import entry_of, told_apart
from .found import TEXT_TASKS, Found, tasks_of
from .layouts import CaptionedFolders, CocoCaptions, Karpathy, QuestionTable
from .text_tables import decode, parse_json, read_text_table

# where the images of a caption file lie, relative to the root; {path} is what the file says
_COCO_IMAGES = [
    f"{folder}{name}"
    for name in ("{path}", "{name}")
    for folder in ("{release}/", "images/{release}/", "images/", "")
]
_LOOKED_AT = 100
_NUMBERS = re.compile(r"[-+\d.eE\s]*\d[-+\d.eE\s]*")
_KARPATHY_FOLDERS = (
    "", "images/", "Images/", "{folder}/", "images/{folder}/", "flickr8k-images/",
    "Flicker8k_Dataset/", "Flickr8k_Dataset/", "flickr30k-images/", "flickr30k_images/",
    "flickr30k_images/flickr30k_images/", "train2014/", "val2014/", "img/", "data/",
)  # fmt: skip


def karpathy(root: Path, hints: Hints, name: str = "") -> Found | None:
    """Karpathy's JSON, whatever it is called, beside its images; ``dataset_*.json`` first.

    Args:
        name: the one file that is meant.
    """
    files = sorted(
        root.glob("*.json"), key=lambda path: (not path.name.startswith("dataset"), path)
    )
    for file in [root / name] if name else files:
        value = _json_or_none(file)
        rows = value.get("images") if isinstance(value, dict) else None
        if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
            continue
        if {"filename", "sentences", "split"} <= set(rows[0]):
            patterns = [f"{folder}{{name}}" for folder in _KARPATHY_FOLDERS]
            layout = Karpathy(kind="karpathy", file=file.name, images=patterns)
            others = [other.name for other in files if other != file]
            remarks = (f"read from {file.name}, not from {', '.join(others)}",) if others else ()
            return Found(root, layout, [], TEXT_TASKS, remarks)
    return None


def _json_or_none(file: Path) -> Any:
    try:
        return parse_json(decode(file), file)
    except UserError:
        return None


def coco(root: Path, hints: Hints) -> Found | None:
    """COCO's caption annotations: ``annotations/captions_*.json``, or such a file in the root."""
    annotations: dict[Split, str] = {}
    alone = ""
    remarks: tuple[str, ...] = ()
    for file in (*sorted((root / "annotations").glob("*.json")), *sorted(root.glob("*.json"))):
        relative = file.relative_to(root).as_posix()
        split = split_word(re.sub(r"\d+$", "", file.stem.rpartition("_")[2]))
        if split in annotations or (split is None and alone):
            again = split is not None and file.name.startswith("captions_")
            remarks += (f"{relative} was not read: one file a split",) if again else ()
            continue
        value = {} if file.name.startswith("captions_") and split else _json_or_none(file)
        if value is None or (value != {} and not _has_captions(value)):
            continue
        if split is None and value != {}:
            alone = relative
        elif split is not None:
            annotations[split] = relative
    if not annotations and alone:
        annotations = {"train": alone}
    if "val" in annotations and "test" not in annotations:
        annotations["test"] = annotations.pop("val")
        remarks += (f"{annotations['test']} is the test split",)
    if not annotations:
        return None
    layout = CocoCaptions(kind="coco_captions", annotations=annotations, images=_COCO_IMAGES)
    return Found(root, layout, [], TEXT_TASKS, remarks)


def _has_captions(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("images"), list):
        return False
    rows = value.get("annotations")
    return (
        isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict) and "caption" in rows[0]
    )


def questions(root: Path, hints: Hints) -> Found | None:
    """Tables with image_id, question and answer, named like splits."""
    files: dict[Split, str] = {}
    remarks: tuple[str, ...] = ()
    for file in sorted(root.glob("*.csv")):
        split = split_word(file.stem.rpartition("_")[2])
        if split is None:
            continue
        try:
            columns = read_text_table(file).columns
        except UserError:
            continue  # of another look
        if {"image_id", "question", "answer"} <= set(columns):
            if split in files:
                remarks += (f"{file.name} was not read: one file a split",)
            files.setdefault(split, file.name)
    if not files:
        return None
    if "test" not in files and "val" in files:
        files["test"] = files.pop("val")
        remarks += (f"{files['test']} is the test split",)
    patterns = [f"{folder}{{stem}}{end}" for folder in ("images/", "") for end in (".png", ".jpg")]
    layout = QuestionTable(kind="question_table", files=files, images=patterns)
    return Found(root, layout, [], ["vqa"], remarks)


def captioned_folders(root: Path, hints: Hints) -> Found | None:
    """Images of which most have a text file of the same name beside them."""
    images = list_images(root)
    captioned = [path for path in images if path.with_suffix(".txt").is_file()]
    if not captioned or len(captioned) < len(images) / 2 or _hold_numbers(captioned):
        return None
    folders = sorted({path.parent.relative_to(root).as_posix() for path in captioned})
    splits = all(split_word(folder.partition("/")[0]) for folder in folders)
    classes = [entry_of(folder) for folder in folders] if "." not in folders and not splits else []
    classes, remarks = told_apart(classes if len(classes) > 1 else [])
    tasks = tasks_of(labels=bool(classes), captions=True)
    return Found(root, CaptionedFolders(kind="captioned_folders"), classes, tasks, tuple(remarks))


def numbers_beside(root: Path) -> bool:
    """Say whether photos have text files of numbers beside them, as YOLO writes boxes."""
    return _hold_numbers([p for p in list_images(root) if p.with_suffix(".txt").is_file()])


def _hold_numbers(images: list[Path]) -> bool:
    """Say whether most of the text files of images hold nothing but numbers, which says nothing."""
    texts = [text for path in images[:_LOOKED_AT] if (text := _text_beside(path))]
    numbers = [text for text in texts if _NUMBERS.fullmatch(text)]
    return 2 * len(numbers) > len(texts)


def _text_beside(path: Path) -> str:
    try:
        return decode(path.with_suffix(".txt")).strip()
    except UserError:  # named when it is read
        return ""

"""Exports of labelling tools as tables of paths and labels: Label Studio, FiftyOne.

Formats: Label Studio's "JSON" and "JSON-MIN" (https://labelstud.io/guide/export); FiftyOne's
``FiftyOneImageClassificationDataset`` (``labels.json``) and ``FiftyOneDataset``
(``samples.json``), https://docs.voxel51.com/user_guide/export_datasets.html.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ...errors import UserError
from ..records import IMAGE_SUFFIXES
from .columns import candidates, plain_column
from .image_paths import FileNames
from .text_tables import TextTable, read_json_text

COLUMNS = ["path", "label", "split"]
# fields of FiftyOne by which people call what a person said, and words for what a model said
_GROUND_TRUTH = (
    "ground_truth", "groundtruth", "gt", "truth", "label", "labels", "class", "category", "target",
    "annotation", "annotations", "human",
)  # fmt: skip
_PREDICTED = frozenset(("pred", "preds", "predicted", "prediction", "predictions", "model", "clip"))
_IMAGE_KEYS = ("image", "img", "photo", "picture", "url", "image_url")


def form_of_export(value: Any) -> str:
    """Return which tool wrote a JSON value, or the empty text.

    >>> form_of_export({"classes": ["cat"], "labels": {"1": 0}})
    'fiftyone_labels'
    >>> form_of_export([{"data": {"image": "1.jpg"}, "annotations": []}])
    'label_studio'
    """
    if isinstance(value, dict):
        if isinstance(value.get("labels"), dict) and "classes" in value:
            return "fiftyone_labels"
        samples = value.get("samples")
        if isinstance(samples, list) and samples and _is_sample(samples[0]):
            return "fiftyone_samples"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        data = value[0].get("data")
        if isinstance(data, dict) and {"annotations", "completions"} & set(value[0]):
            return "label_studio"
        if {"annotator", "annotation_id"} & set(value[0]):
            return "label_studio"
    return ""


def _is_sample(value: Any) -> bool:
    return isinstance(value, dict) and "filepath" in value


def rows_of_export(path: Path, form: str, label: str = "") -> TextTable:
    """Return an export as rows with ``path``, a label (all labels of a photo) and ``split``.

    Args:
        path: the file. form: which tool wrote it.
        label: the field of FiftyOne, or the control of Label Studio, that holds the labels;
            by default what is called like a ground truth.

    Raises:
        UserError: it is not in the form, has labels of another kind than a class a photo, or in
            several fields of which none is called so.
    """
    value = read_json_text(path)
    try:
        if form == "fiftyone_samples":
            label = _label_field(value, label, path)
            rows = _fiftyone_samples(value, path, label)
        elif form == "label_studio":
            rows = _label_studio(value, path, "" if label == COLUMNS[1] else label)
        else:
            rows, label = _fiftyone_labels(value, path), COLUMNS[1]
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
        tool = "Label Studio" if form == "label_studio" else "FiftyOne"
        raise UserError(f"{path} is not an export of {tool} that can be read.") from error
    return TextTable(COLUMNS, rows, label=label or COLUMNS[1])


def _label_studio(tasks: Any, path: Path, label: str) -> list[dict[str, Any]]:
    rows = []
    for task in tasks:
        data = task.get("data", task)  # JSON-MIN has no "data"
        image = next(str(data[key]) for key in (*_IMAGE_KEYS, *data) if _names_image(data, key))
        given = task.get("annotations", task.get("completions"))
        if given is None:
            keys = (label,) if label else ("choice", "label", "class")
            labels = next((task[key] for key in keys if key in task), None)
        else:
            labels = [choice for entry in given for choice in _choices(entry, label)]
            labels = list(dict.fromkeys(labels))  # annotators who agree
        rows.append({"path": local_path(image), "label": labels, "split": ""})
    return rows


def _names_image(data: dict[str, Any], key: str) -> bool:
    value = data.get(key)
    if not isinstance(value, str):
        return False
    return key in _IMAGE_KEYS or Path(local_path(value)).suffix.lower() in IMAGE_SUFFIXES


def _choices(annotation: dict[str, Any], control: str) -> list[str]:
    if annotation.get("was_cancelled"):
        return []
    results = annotation.get("result", [])
    return [
        str(choice)
        for result in results
        if result.get("type") == "choices" and control in ("", result.get("from_name"))
        for choice in result["value"]["choices"]
    ]


def local_path(url: str) -> str:
    """Return the path in an address of Label Studio.

    >>> local_path("/data/local-files/?d=shop/a%20mug.jpg"), local_path("/data/upload/1/9.jpg")
    ('shop/a mug.jpg', '/data/upload/1/9.jpg')
    """
    parts = urlsplit(url)
    if "d" in parse_qs(parts.query):
        return parse_qs(parts.query)["d"][0]
    if len(parts.scheme) > 1:  # one letter is a drive of Windows
        return unquote(f"{parts.netloc}{parts.path}")
    return unquote(url) if "%" in url else url


def _fiftyone_labels(value: Any, path: Path) -> list[dict[str, Any]]:
    classes = value["classes"] or []
    names = FileNames()
    rows = []
    for key, label in value["labels"].items():
        many = label if isinstance(label, list) else [label]
        found = [_fiftyone_label(entry, classes) for entry in many if entry is not None]
        rows.append({"path": _with_suffix(path.parent, key, names), "label": found, "split": ""})
    return rows


def _fiftyone_label(entry: Any, classes: list[Any]) -> str:
    if isinstance(entry, dict):
        entry = entry["label"]
    if isinstance(entry, bool) or not isinstance(entry, (int, str)):
        raise TypeError
    if isinstance(entry, int):
        if not 0 <= entry < len(classes):
            raise IndexError
        entry = classes[entry]
    return str(entry)


def _with_suffix(root: Path, key: str, names: FileNames) -> str:
    """Return the path of a photo that is named without its suffix, below ``data``."""
    for suffix in ("", *sorted(IMAGE_SUFFIXES)):
        if names.find(root / "data" / f"{key}{suffix}"):
            return f"data/{key}{suffix}"
    return f"data/{key}"


def _fiftyone_samples(value: Any, path: Path, field: str) -> list[dict[str, Any]]:
    rows = []
    for sample in value["samples"]:
        given = _classifications(sample).get(field, {})
        many = given.get("classifications", [given] if given else [])
        labels = [entry["label"] for entry in many if entry.get("label") is not None]
        tags = [tag for tag in sample.get("tags") or [] if isinstance(tag, str)]
        rows.append({"path": str(sample["filepath"]), "label": labels, "split": _tag(tags)})
    return rows


def _classifications(sample: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: field
        for name, field in sample.items()
        if isinstance(field, dict) and str(field.get("_cls")).startswith("Classification")
    }


def _label_field(value: Any, asked: str, path: Path) -> str:
    """Return the field of all samples that says what a person said, not what a model said.

    Raises:
        UserError: the field that was asked for is not there, or several could be meant.
    """
    fields = list(dict.fromkeys(n for s in value["samples"] for n in _classifications(s)))
    if asked in fields:
        return asked
    if asked not in ("", "label"):
        raise UserError(
            f"{path} has no classes in the field {asked!r}.",
            f"Its fields with classes: {', '.join(fields) or 'none'}.",
        )
    said = candidates(fields, _GROUND_TRUTH)
    others = [f for f in fields if not _PREDICTED & set(plain_column(f).split("_"))]
    chosen = said[:1] or (others if len(others) == 1 else fields)
    if len(chosen) > 1:
        raise UserError(
            f"{path} has classes in several fields: {', '.join(fields)}.",
            f"Name the one that a person labelled: --label-column {(others or chosen)[0]}.",
        )
    return chosen[0] if chosen else ""


def _tag(tags: list[str]) -> str:
    known = ("train", "val", "validation", "test")
    return next((tag for tag in tags if tag in known), "")

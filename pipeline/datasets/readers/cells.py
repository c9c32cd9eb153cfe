"""What a cell of a table says: a path, a label, captions. Whatever type a stranger gave it."""

from __future__ import annotations

import ast
import json
import math
from typing import Any

from ...counts import counted
from ...errors import UserError

_KEYS = ("raw", "caption", "text", "label", "choices", "name")
_MAX_LITERAL = 100_000


def text_of(value: Any) -> str:
    """Return a cell as text, blanks cut; nothing is the empty text.

    >>> text_of("  NA "), text_of(None), text_of(7), text_of(float("nan"))
    ('NA', '', '7', '')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and no file can
        text = text.encode("utf-8", "replace").decode()
    return text


def labels_of(value: Any) -> list[str]:
    """Return the labels of a cell: none, one, or several where it holds a list.

    >>> labels_of("mug "), labels_of(["a", "b"]), labels_of({"choices": ["a"]}), labels_of(None)
    (['mug'], ['a', 'b'], ['a'], [])
    """
    if isinstance(value, dict):
        value = next((value[key] for key in _KEYS if key in value), None)
    if isinstance(value, (list, tuple)):
        return [label for entry in value for label in labels_of(entry)]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
        return []
    text = text_of(value)
    return [text] if text and text != "-1" else []


def captions_of(value: Any) -> list[str]:
    """Return the captions of a cell: a text, a list of texts, or a list written as a text.

    >>> captions_of('["a dog", "two dogs"]'), captions_of([{"raw": "a cat "}, None])
    (['a dog', 'two dogs'], ['a cat'])
    """
    if isinstance(value, dict):
        value = next((value[key] for key in _KEYS if key in value), None)
    if isinstance(value, (list, tuple)):
        return [text for entry in value for text in captions_of(entry)]
    text = text_of(value)
    if text.startswith(("['", '["')) and text.endswith("]"):
        listed = _literal(text)
        if listed is not None:
            return [text for entry in listed for text in captions_of(entry)]
    return [text] if text else []


def _literal(text: str) -> list[str] | None:
    """Return a list of texts written in JSON or in Python, or None if it is none."""
    if len(text) > _MAX_LITERAL:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return value
    return None


def several_labels(source: object, photos: int, first: str, labels: list[str]) -> UserError:
    """Build the one sentence that refuses several labels a photo."""
    shown = ", ".join(labels[:4]) + (", …" if len(labels) > 4 else "")
    return UserError(
        f"{source} gives {counted(photos, 'photo', 'photos')} more than one label"
        f" (first {first}: {shown}); several labels a photo are not supported.",
        "Keep one label a photo, or add one data set for each question that the labels answer.",
    )

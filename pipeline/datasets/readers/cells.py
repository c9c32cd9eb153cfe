"""What a cell of a table says: a path, a label, captions. Whatever type a stranger gave it."""

from __future__ import annotations

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
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
    """Return the labels of a cell: none, one, or several where it holds a list or is one in text.

    >>> labels_of("mug "), labels_of(["a", "b"]), labels_of({"choices": ["a"]}), labels_of(None)
    (['mug'], ['a', 'b'], ['a'], [])
    >>> labels_of("['cat', 'dog']"), labels_of('{"choices": ["cat"]}'), labels_of("[sic]")
    (['cat', 'dog'], ['cat'], ['[sic]'])
    """
    if isinstance(value, dict):
        value = next((value[key] for key in _KEYS if key in value), None)
    if isinstance(value, (list, tuple)):
        return [label for entry in value for label in labels_of(entry)]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
        return []
    text = text_of(value)
    listed = _written_list(text)
    if listed is not None:
        return [label for entry in listed for label in labels_of(entry)]
    return [text] if text and text != "-1" else []


def _written_list(text: str) -> list[Any] | None:
    """Return what a list of labels in a text holds, as pandas, NumPy and JSON write it."""
    if text[:1] + text[-1:] not in ("[]", "()", "{}") or not 1 < len(text) <= _MAX_LITERAL:
        return None
    # NumPy leaves the commas out, and Python would join its texts
    spaced = re.sub(r"""(?<=['"])\s+(?=['"])""", ", ", text)
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(spaced)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict):
            return [value] if set(value) & set(_KEYS) else None
        if isinstance(value, (list, tuple, set)):
            ordered = sorted(value, key=str) if isinstance(value, set) else list(value)
            plain = all(isinstance(entry, (str, int, float, type(None))) for entry in ordered)
            return ordered if plain else None
    inside = [part.strip() for part in text[1:-1].split(",")]
    return inside if text[0] == "[" and len(inside) > 1 and all(inside) else None


def refuse_joined(source: object, counts: Mapping[str, int]) -> None:
    """Refuse labels such as ``cat;dog`` whose parts are labels of other photos.

    Args:
        source: the table. counts: photos of each label.

    Raises:
        UserError: there are such labels.
    """
    known = {label.casefold() for label in counts}
    parts = {
        label: pieces
        for label in counts
        for separator in (";", "|", ",")
        if len(pieces := [piece.strip() for piece in label.split(separator)]) > 1 and all(pieces)
    }
    joined = {
        label: pieces
        for label, pieces in parts.items()
        if known.issuperset(piece.casefold() for piece in pieces)
    }
    # no photo need have one label alone: then every part of every such cell is in another one
    seen = Counter(piece.casefold() for pieces in parts.values() for piece in set(pieces))
    seen.update(known)
    bars = {label: some for label, some in parts.items() if ";" in label or "|" in label}
    if bars and all(seen[piece.casefold()] > 1 for some in bars.values() for piece in some):
        joined |= bars
    if joined:
        photos = sum(counts[label] for label in joined)
        first, pieces = next(iter(joined.items()))
        raise several_labels(source, photos, repr(first), pieces)


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


def raise_without_labels(source: object, label: str, captions: object) -> None:
    """Refuse a column of labels that is empty, unless there are captions.

    Raises:
        UserError: there is nothing to learn from.
    """
    if not captions:
        raise UserError(f"{source} has only rows without a {label!r}.", "Fill them in.")

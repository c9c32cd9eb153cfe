"""Mutations of a file: bytes for any format, values for JSON, and pieces of other files."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

_BYTES = (b"\x00", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"\n", b"\r", b"{", b"[", b"]",
          b",", b"'", b"\\", b"../", b"/", b"\xc3", b"NaN", b"null", b"1e999", b"-1", b"%s", b"{0}",
          b"\x80\x00\x00\x00", b"\x7f\xff\xff\xff", b"\xff" * 8)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 0.5, float("nan"), float("inf"), "",
    " ", "owl", "\x00", "\ud800", "../../x", "/etc/passwd", "x" * 5000, [], {}, [[]], [None],
    {"a": 1}, {"": None}, "{}", "{article}", "1", "-0", "é\u202e",
)  # fmt: skip
_MOST = 1 << 18


def mutate(data: bytes, source: random.Random, others: Sequence[bytes]) -> bytes:
    """Return ``data`` with one to four mutations."""
    for _ in range(source.choice((1, 1, 1, 2, 2, 3, 4))):
        if source.random() < 0.5 and (changed := _json(data, source)) is not None:
            data = changed
        else:
            data = _bytes(data, source, others)
    return data[:_MOST]


def _bytes(data: bytes, source: random.Random, others: Sequence[bytes]) -> bytes:
    if not data:
        return source.choice(_BYTES)
    a = source.randrange(len(data))
    b = min(len(data), a + source.choice((1, 2, 4, 8, 64, 512)))
    kind = source.randrange(8)
    if kind == 0:
        return data[:a] + bytes([data[a] ^ 1 << source.randrange(8)]) + data[a + 1 :]
    if kind == 1:
        return data[:a] + source.choice(_BYTES) + data[b:]
    if kind == 2:
        return data[:a] + source.choice(_BYTES) + data[a:]
    if kind == 3:
        return data[:a] + data[b:]
    if kind == 4:
        return data[:b] + data[a:b] * source.choice((1, 3, 50)) + data[b:]
    if kind == 5:
        return data[:a]
    if kind == 6:
        return data[:a] + source.randbytes(b - a) + data[b:]
    other = source.choice(others)
    return data[:a] + other[source.randrange(len(other) + 1) :]


def _json(data: bytes, source: random.Random) -> bytes | None:
    """Change one value of a JSON document, or of one line of JSON lines."""
    if len(data) > _MOST or data[:1] not in b"[{":
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        lines = data.split(b"\n")
        place = source.randrange(len(lines))
        changed = _json(lines[place], source) if len(lines) > 1 else None
        return (
            None if changed is None else b"\n".join([*lines[:place], changed, *lines[place + 1 :]])
        )
    places: list[tuple[Any, Any]] = []
    _walk(value, places, 0)
    if not places:
        return None
    holder, key = source.choice(places)
    kind = source.randrange(5)
    if kind == 0 and isinstance(holder, dict):
        holder[source.choice(("", "label", "image", "x", str(key) + " "))] = holder.pop(key)
    elif kind == 1:
        del holder[key]
    elif kind == 2 and isinstance(holder, list):
        holder.append(holder[key])
    elif kind == 3:
        other, name = source.choice(places)
        holder[key] = json.loads(json.dumps(other[name])) if name in _keys(other) else None
    else:
        holder[key] = source.choice(_VALUES)
    try:
        return json.dumps(value).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None


def _keys(holder: Any) -> Any:
    return holder.keys() if isinstance(holder, dict) else range(len(holder))


def _walk(value: Any, places: list[tuple[Any, Any]], depth: int) -> None:
    if depth > 30 or len(places) > 2000:
        return
    if isinstance(value, dict | list):
        for key in _keys(value):
            places.append((value, key))
            _walk(value[key], places, depth + 1)

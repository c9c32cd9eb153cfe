"""Finished work in one file each: whole or absent, with a checksum over all.

Three shapes: tensors with notes (plain safetensors, the checksum in its metadata), a record (JSON,
the checksum in it), and lines (one JSON object each, the checksum in the name of the file, since
lines have no place for it). Files written before there was a checksum are read as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

from .errors import UserError
from .files import (
    atomic_path,
    finite,
    hash_value,
    read_json,
    require_regular,
    unreadable,
    write_json,
)
from .progress import step

CHECKSUM = "sha256"
_CHUNK = 1 << 20
_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
# of headers that say anything; AttributeError: types of numbers that numpy has not
_NO_HEADER = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip
_IN_NAME = 16  # hex digits of a checksum that stands in a name


def write_tensors(path: str | Path, tensors: Mapping[str, Any], notes: Mapping[str, str]) -> None:
    """Write named tensors (torch or numpy, any shapes) and notes, whole or not at all.

    Raises:
        UserError: the disk is full, or ``path`` cannot be written.
    """
    flat, save = _serialiser(tensors)
    notes = {name: text for name, text in notes.items() if name != CHECKSUM}
    checksum = _checksum(io.BytesIO(save(flat, metadata=notes)))
    with atomic_path(path) as temporary:
        temporary.write_bytes(_in_order(save(flat, metadata={**notes, CHECKSUM: checksum})))


def read_tensors(
    path: str | Path,
    framework: Literal["np", "pt"] = "pt",
    device: str = "cpu",
    *,
    names: Sequence[str] | None = None,
    check: bool = True,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the tensors and the notes that :func:`write_tensors` wrote.

    Args:
        names: read these tensors only; by default all.
        check: compare the checksum, which reads the whole file. Leave it out only for a file that
            this process has checked, or where a wrong value is found later.

    Raises:
        UserError: the file is absent, cut, no safetensors file, lacks a tensor of ``names``, or its
            checksum does not agree.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        require_regular(path)
        if check:
            _require_checksum(path)
        options = {"device": device} if framework == "pt" else {}
        with safe_open(path, framework=framework, **options) as opened:
            wanted = opened.keys() if names is None else names
            tensors = {name: opened.get_tensor(name) for name in wanted}
            notes = dict(opened.metadata() or {})
    except OSError as error:
        raise unreadable(error, path) from error
    except (SafetensorError, *_NO_HEADER) as error:
        raise damaged(path, str(error)) from error
    notes.pop(CHECKSUM, None)
    return tensors, notes


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a file, of which only the beginning is read.

    Raises:
        UserError: the file is absent, or is no safetensors file.
    """
    path = Path(path)
    try:
        require_regular(path)
        with path.open("rb") as stream:
            header = _header(stream)
        header.pop("__metadata__", None)
        return {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
    except OSError as error:
        raise unreadable(error, path) from error
    except _NO_HEADER as error:
        raise damaged(path, str(error)) from error


def finished(
    path: str | Path, framework: Literal["np", "pt"] = "pt", device: str = "cpu"
) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Return finished work, or nothing where it is absent, or damaged and must be done again."""
    if not Path(path).is_file():
        return None
    try:
        return read_tensors(path, framework, device)
    except UserError as error:
        step(f"{error.message} What it held is done again.")
        return None


def write_record(path: str | Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object with a checksum over it, whole or not at all."""
    content = finite({name: value for name, value in record.items() if name != CHECKSUM})
    write_json(path, {**content, CHECKSUM: hash_value(json.loads(json.dumps(content)))})


def read_record(path: str | Path) -> dict[str, Any]:
    """Return the object that :func:`write_record` wrote; without a checksum, as it is.

    Raises:
        UserError: the file is absent, is no JSON object, or its checksum does not agree.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise damaged(Path(path), "it holds no JSON object")
    recorded = record.pop(CHECKSUM, None)
    if recorded is not None and recorded != hash_value(record):
        raise damaged(Path(path), "its checksum does not agree")
    return record


def finished_record(path: str | Path) -> dict[str, Any] | None:
    """Return a record, or nothing where it is absent, or damaged and must be made again."""
    if not Path(path).is_file():
        return None
    try:
        return read_record(path)
    except UserError as error:
        step(f"{error.message} It is made again.")
        return None


def write_lines(folder: Path, stem: str, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write JSON objects, one a line, whole or not at all; return the path, ``STEM-HASH.jsonl``.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
    """
    # ASCII only: a text of a stranger may hold anything, half a surrogate pair too
    content = "".join(json.dumps(record) + "\n" for record in records).encode("ascii")
    path = folder / f"{stem}-{_in_name(content)}.jsonl"
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


def read_lines(path: Path) -> list[Any]:
    """Return what :func:`write_lines` wrote.

    Raises:
        UserError: the file is absent, or its content is not what its name says.
    """
    try:
        require_regular(path)
        content = path.read_bytes()
        if _in_name(content) != path.stem.rpartition("-")[2]:
            raise damaged(path, "its checksum does not agree")
        return [json.loads(line) for line in content.decode("ascii").splitlines()]
    except OSError as error:
        raise unreadable(error, path) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error


def _in_name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_IN_NAME]


def damaged(path: Path, why: str) -> UserError:
    """Build the error for a file of ours that something else has changed or cut short."""
    return UserError(
        f"{path} is damaged: {why}.", "Restore it from a copy, or remove it and make it again."
    )


def _serialiser(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    import numpy as np

    if all(isinstance(tensor, np.ndarray) for tensor in tensors.values()):
        from safetensors.numpy import save

        return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, save
    from safetensors.torch import save

    return {n: t.detach().cpu().clone().contiguous() for n, t in tensors.items()}, save


def _in_order(data: bytes) -> bytes:
    """Return a safetensors file with its notes in order: the library's own is random.

    The same work must be the same bytes. Tensors lie at places counted from the end of the header.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def _header(stream: BinaryIO) -> dict[str, Any]:
    stream.seek(0)
    size = int.from_bytes(stream.read(8), "little")
    if not 2 <= size <= _HEADER_LIMIT:
        raise ValueError("it is no safetensors file")
    header = json.loads(stream.read(size).decode("utf-8"))
    if not isinstance(header, dict):
        raise ValueError("it is no safetensors file")
    return header


def _require_checksum(path: Path) -> None:
    with path.open("rb") as stream:
        found = _checksum(stream)
        recorded = (_header(stream).get("__metadata__") or {}).get(CHECKSUM)
    if recorded is not None and recorded != found:
        raise damaged(path, "its checksum does not agree")


def _checksum(stream: BinaryIO) -> str:
    """Return the SHA-256 of names, types, shapes, notes and data: all but the checksum itself."""
    header = _header(stream)
    notes = dict(header.get("__metadata__") or {})
    notes.pop(CHECKSUM, None)
    parts = {name: entry for name, entry in header.items() if name != "__metadata__"}
    digest = hashlib.sha256(json.dumps([parts, notes], sort_keys=True).encode())
    while block := stream.read(_CHUNK):
        digest.update(block)
    return digest.hexdigest()

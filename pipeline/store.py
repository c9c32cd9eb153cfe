"""Finished work in one file each: tensors and notes, whole or absent, with a checksum over all.

The file is plain safetensors, which any program reads; its checksum stands in its metadata. Files
written before there was one are read as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

from .errors import UserError
from .files import atomic_path, finite, hash_value, read_json, require_regular, write_json

CHECKSUM = "sha256"
_CHUNK = 1 << 20
_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit


def write_tensors(path: str | Path, tensors: Mapping[str, Any], notes: Mapping[str, str]) -> None:
    """Write named tensors (torch or numpy, any shapes) and notes, whole or not at all.

    Raises:
        UserError: the disk is full, or ``path`` cannot be written.
    """
    flat, save = _serialiser(tensors)
    notes = {name: text for name, text in notes.items() if name != CHECKSUM}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(flat, metadata=notes))
        with temporary.open("rb") as stream:
            checksum = _checksum(stream)
        temporary.write_bytes(save(flat, metadata={**notes, CHECKSUM: checksum}))


def read_tensors(
    path: str | Path, framework: Literal["np", "pt"] = "pt", device: str = "cpu"
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the tensors and the notes that :func:`write_tensors` wrote.

    Raises:
        UserError: the file is absent, cut, no safetensors file, or its checksum does not agree.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        require_regular(path)
        with path.open("rb") as stream:
            found, recorded = _checksum(stream), _recorded(stream)
        if recorded is not None and recorded != found:
            raise damaged(path, "its checksum does not agree")
        options = {"device": device} if framework == "pt" else {}
        with safe_open(path, framework=framework, **options) as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            notes = dict(opened.metadata() or {})
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (SafetensorError, ValueError) as error:
        raise damaged(path, str(error)) from error
    notes.pop(CHECKSUM, None)
    return tensors, notes


def finished(
    path: str | Path, framework: Literal["np", "pt"] = "pt", device: str = "cpu"
) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Return finished work, or nothing where it is absent or damaged and must be done again."""
    if not Path(path).is_file():
        return None
    try:
        return read_tensors(path, framework, device)
    except UserError:
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


def _header(stream: BinaryIO) -> dict[str, Any]:
    stream.seek(0)
    size = int.from_bytes(stream.read(8), "little")
    if not 2 <= size <= _HEADER_LIMIT:
        raise ValueError("it is no safetensors file")
    header = json.loads(stream.read(size).decode("utf-8"))
    if not isinstance(header, dict):
        raise ValueError("it is no safetensors file")
    return header


def _recorded(stream: BinaryIO) -> str | None:
    return (_header(stream).get("__metadata__") or {}).get(CHECKSUM)


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

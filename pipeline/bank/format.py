"""The sealed footer of a bank: what it holds, where every class lies, and checksums of every byte.

A bank is an ordinary Parquet file that any tool reads. Its key-value metadata holds one more entry,
``aape.bank``: a JSON document (:class:`Footer`). The checksums leave no byte out:

- the bytes of each row group are hashed, so damage is named by row group and class;
- the rest of the file, from the end of the last row group to the last byte, is hashed with the
  64 digits of this hash itself taken as zeros (the seal), so damage to the footer is found too.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..config import Section
from ..errors import UserError
from ..files import require_regular
from .schema import SCHEMA_VERSION, BankMetadata

KEY = b"aape.bank"
_MAGIC = b"PAR1"
_UNSEALED = "0" * 64
_SEAL = b'"seal":"'

REMAKE = "Repeat the command that made it: finished answers are reused. Or restore a copy."

# Steps from version v of the JSON document to v + 1. Version 1 is the first there is.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


class RowGroup(Section):
    """A slice of the rows, ``rows`` long; its bytes end before ``end`` and hash to ``sha256``.

    ``vectors`` is the position in the file of its embeddings: ``rows * dim`` little-endian floats.
    """

    rows: int
    end: int
    vectors: int
    sha256: str


class ClassRows(Section):
    """Where the rows of a class lie (rows are sorted by data set and class), and how many count."""

    dataset: str
    class_id: int
    start: int
    rows: int
    kept: int


class Footer(Section):
    """Everything that can be known of a bank without reading a row."""

    seal: str = _UNSEALED
    metadata: BankMetadata
    rows: int
    content_hash: str
    groups: list[RowGroup]
    classes: list[ClassRows]

    def to_json(self) -> str:
        """Return the document as stored: compact, the seal first."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))


class BankFile(NamedTuple):
    """One file of a bank, with its own footer."""

    path: Path
    footer: Footer


def write_seal(path: Path, footer: Footer) -> Footer:
    """Compute the seal of a finished file and write it in its place; return the footer with it."""
    with path.open("r+b") as stream:
        start = _tail_start(footer)
        stream.seek(start)
        tail = stream.read()
        position = _seal_position(tail)
        seal = hashlib.sha256(tail).hexdigest().encode()
        stream.seek(start + position)
        stream.write(seal)
    return footer.model_copy(update={"seal": seal.decode()})


def read_footer(path: Path) -> Footer:
    """Read and check the footer: cheap, whatever the size of the bank.

    Raises:
        UserError: the file is absent, no bank, truncated, damaged, or of an unknown version.
    """
    try:
        require_regular(path)
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            head = stream.read(4)
            stream.seek(max(size - 8, 0))
            end = stream.read()
            length = struct.unpack("<I", end[:4])[0] if len(end) == 8 else 0
            whole = head == _MAGIC and end[4:] == _MAGIC and 12 + length <= size
            stream.seek(max(size - 8 - length, 0))
            thrift = stream.read(length) if whole else b""
    except FileNotFoundError as error:
        raise UserError(
            f"The bank {path} does not exist.", "Make one with: aape generate-prompts."
        ) from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder, not a bank.", "Name the .parquet file.") from error
    except PermissionError as error:
        raise UserError(f"The bank {path} cannot be read: {error.strerror}.") from error
    if head != _MAGIC:
        raise UserError(
            f"{path} is not a prompt bank: it does not begin as a Parquet file.",
            "Published prompt files become a bank with: aape import-prompts.",
        )
    if not whole:
        raise UserError(f"The bank {path} is truncated: its end is missing.", REMAKE)
    document = _document(path, thrift)
    if not _sealed(path, document):
        raise UserError(f"The bank {path} is damaged in its footer.", REMAKE)
    try:
        migrated = _migrated(path, document)
    except (KeyError, TypeError, AttributeError) as error:  # sealed, but by another program
        raise UserError(f"The footer of {path} is not that of a prompt bank.", REMAKE) from error
    return Footer.parse(migrated, f"The footer of {path}")


def _sealed(path: Path, document: dict[str, Any]) -> bool:
    """Check the seal. It is made by the same rule in every version of the schema."""
    try:
        start = document["groups"][-1]["end"] if document["groups"] else len(_MAGIC)
        with path.open("rb") as stream:
            stream.seek(start)
            tail = stream.read()
    except (LookupError, TypeError, ValueError, OverflowError, OSError):
        return False
    position = tail.find(_SEAL) + len(_SEAL)
    unsealed = tail[:position] + _UNSEALED.encode() + tail[position + len(_UNSEALED) :]
    return hashlib.sha256(unsealed).hexdigest() == document["seal"]


def _migrated(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    version = document["metadata"]["schema_version"]
    if version > SCHEMA_VERSION:
        raise UserError(
            f"The bank {path} has schema version {version}; this aape reads up to "
            f"{SCHEMA_VERSION}.",
            "Update aape: pip install --upgrade aape.",
        )
    for step in range(version, SCHEMA_VERSION):
        if step not in MIGRATIONS:
            raise UserError(
                f"The bank {path} has schema version {version}, which this aape cannot read.",
                "Make it again from its prompts.",
            )
        document = MIGRATIONS[step](document)
    return document


def _document(path: Path, thrift: bytes) -> dict[str, Any]:
    """Find the JSON document in the footer's bytes.

    The document is stored as it is, so it can be read before the damage check, and by a decoder
    that stops at its closing brace.
    """
    start = thrift.find(b'{"seal":"')
    if start < 0 or KEY not in thrift:
        raise UserError(
            f"{path} is a Parquet file, but not a prompt bank: its metadata has no {KEY.decode()}.",
            "Another program may have rewritten it; use the file that aape wrote.",
        )
    try:
        text = thrift[start:].decode("utf-8", errors="replace")
        document, _ = json.JSONDecoder().raw_decode(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"The bank {path} is damaged in its footer.", REMAKE) from error
    return document


def _tail_start(footer: Footer) -> int:
    return footer.groups[-1].end if footer.groups else len(_MAGIC)


def _seal_position(tail: bytes) -> int:
    position = tail.find(_SEAL) + len(_SEAL)
    if tail.count(_SEAL + _UNSEALED.encode()) != 1:
        raise AssertionError("the footer must hold the unsealed seal exactly once")
    return position

"""The sealed footer of a bank: what it holds, where every class lies, and checksums of every byte.

A bank is an ordinary Parquet file that any tool reads. Its key-value metadata holds one more entry,
``aape.bank``: a JSON document (:class:`Footer`). The checksums leave no byte out:

- the bytes of each row group are hashed, so damage is named by row group and class;
- the rest of the file, from the end of the last row group to the last byte, is hashed with the
  64 digits of this hash itself taken as zeros (the seal), so damage to the footer is found too.
"""

# pyarrow.compute makes its functions at import, so they are unknown to the type checker:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import Section
from ..errors import UserError
from ..files import require_regular
from .schema import SCHEMA_VERSION, BankMetadata, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

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
    footer = Footer.parse(migrated, f"The footer of {path}")
    problem = _groups_problem(footer, size) or _classes_problem(footer)
    if problem:
        raise UserError(f"The footer of {path} is wrong about {problem}.", REMAKE)
    return footer


def open_rows(file: BankFile) -> pq.ParquetFile:
    """Open a file of a bank for reading rows.

    Raises:
        UserError: its columns or row groups are not those of a bank, or of its footer.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    wrong = UserError(f"The columns of {file.path} are not those of a prompt bank.", REMAKE)
    try:
        opened = pq.ParquetFile(file.path, memory_map=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise wrong from error
    about = opened.metadata
    rows = [about.row_group(index).num_rows for index in range(about.num_row_groups)]
    said = [group.rows for group in file.footer.groups]
    if rows != said or not opened.schema_arrow.equals(arrow_schema(file.footer.metadata.dim)):
        raise wrong
    return opened


def read_rows(opened: pq.ParquetFile, index: int, fields: list[pa.Field], path: Path) -> pa.Table:
    """Return columns of a row group, checked value by value.

    Raises:
        UserError: they cannot be decoded, or hold text that is none or dates that Python lacks.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names = [field.name for field in fields]
    try:
        part = opened.read_row_group(index, columns=names).select(names).cast(pa.schema(fields))
        part.validate(full=True)
        for field in fields:
            if pa.types.is_timestamp(field.type):
                _ = [end.as_py() for end in pc.min_max(part.column(field.name)).values()]
        return part
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:
        reason = str(error).strip().partition("\n")[0][:200].rstrip(".")
        raise UserError(f"The rows of {path} cannot be read: {reason}.", REMAKE) from error


def _groups_problem(footer: Footer, size: int) -> str:
    """Say which row group cannot lie where a footer says, in a file of so many bytes.

    A seal says that nothing changed since, not that whoever made it told the truth.
    """
    rows, before = 0, len(_MAGIC)
    for number, group in enumerate(footer.groups):
        length = 4 * footer.metadata.dim * group.rows
        # the writer puts the vectors last, so they end with their group
        if group.rows < 1 or group.end - length != group.vectors or group.vectors < before:
            return f"row group {number}"
        rows, before = rows + group.rows, group.end
    if before > size:
        return "the size of its row groups"
    return "" if rows == footer.rows else "the number of its rows"


def _classes_problem(footer: Footer) -> str:
    """Say which class cannot have the rows that the directory gives it: all follow each other."""
    names = {part.dataset: len(part.class_names) for part in footer.metadata.datasets}
    if len(names) < len(footer.metadata.datasets):
        return "its data sets: a name is there twice"
    covered, seen = 0, set()
    for entry in footer.classes:
        here = (entry.dataset, entry.class_id)
        known = 0 <= entry.class_id < names.get(entry.dataset, 0) and here not in seen
        rows = entry.start == covered and entry.rows >= 1 and 0 <= entry.kept <= entry.rows
        if not known or not rows:
            return f"the rows of {entry.dataset} class {entry.class_id}"
        seen.add(here)
        covered += entry.rows
    return "" if covered == footer.rows else "the rows of its classes"


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
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise UserError(f"The bank {path} is damaged in its footer.", REMAKE) from error
    return document


def _tail_start(footer: Footer) -> int:
    return footer.groups[-1].end if footer.groups else len(_MAGIC)


def _seal_position(tail: bytes) -> int:
    position = tail.find(_SEAL) + len(_SEAL)
    if tail.count(_SEAL + _UNSEALED.encode()) != 1:
        raise AssertionError("the footer must hold the unsealed seal exactly once")
    return position

"""Writing a bank: rows in a canonical order, cut into row groups, checksummed, renamed into place.

Letters: n rows (prompts), d embedding width.
"""

# pyarrow.compute makes its functions at import, so they are unknown to the type checker:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import UserError, unknown_name
from ..files import atomic_path, exclusive
from .content import ContentHash
from .format import KEY, ClassRows, Footer, RowGroup, write_seal
from .schema import (
    COLUMNS,
    KEPT,
    BankMetadata,
    PromptRow,
    arrow_schema,
    embedding_array,
    embedding_matrix,
    rows_to_table,
    unit_length,
)

GROUP_ROWS = 8192
_ORDER = ["dataset", "class_id", "query_id", "sample_index", "prompt_id"]
_VECTORS = "embedding.list.element"
# Statistics only of numbers: text of users has no business in the footer.
_STATISTICS = ["class_id", "seed", "sample_index", "n_tokens_llm", "n_tokens_clip"]

if TYPE_CHECKING:
    from .bank import PromptBank


def write_bank(
    path: str | Path, rows: Iterable[PromptRow] | pa.Table, metadata: BankMetadata
) -> PromptBank:
    """Write a bank, atomically: a crash leaves the old file or the new one.

    The order in which rows arrive does not matter: they are sorted by data set, class, query,
    sample and id, so equal rows give an equal bank. Embeddings are stored plain and uncompressed,
    one page a row group, so that readers map them into memory without decoding.

    Raises:
        UserError: two rows have one id, a class is not in the metadata, an embedding has another
            width or is not of unit length, the disk is full, or another process writes this bank.
    """
    from .bank import PromptBank

    path = Path(path)
    with exclusive(path, "writing"):
        write_part(path, rows, metadata)
    return PromptBank.open(path)


def write_part(
    path: Path,
    rows: Iterable[PromptRow] | pa.Table,
    metadata: BankMetadata,
    whole: ContentHash | None = None,
) -> Footer:
    """Write one file, which may be a part of a bank; ``whole`` is fed with its rows, too."""
    table = rows if isinstance(rows, pa.Table) else rows_to_table(rows, metadata.dim)
    table = conform(table, metadata.dim)
    _check_classes(table, metadata)
    # The embeddings go another way than the other columns: Arrow would copy all of them at once.
    chunks = [embedding_matrix(chunk) for chunk in table.column("embedding").chunks]
    facts = table.select(COLUMNS).combine_chunks()
    order = pc.sort_indices(facts, [(name, "ascending") for name in _ORDER])
    order = order.to_numpy().astype(np.int64)
    if (order[1:] > order[:-1]).all():
        order = None  # sorted already: slices instead of gathers
    with atomic_path(path) as temporary:
        with temporary.open("wb") as stream:
            gather = _Gather(chunks, metadata.dim)
            footer = _write_groups(stream, facts, gather, order, metadata, whole)
        return write_seal(temporary, footer)


def conform(table: pa.Table, dim: int) -> pa.Table:
    """Return the table with exactly the columns, order and types of the schema.

    Raises:
        UserError: a column is missing or unknown, or its values do not fit the type.
    """
    schema = arrow_schema(dim)
    if missing := [name for name in schema.names if name not in table.column_names]:
        raise UserError(f"The rows lack the columns {', '.join(missing)}.")
    if unknown := [name for name in table.column_names if name not in schema.names]:
        raise unknown_name("column of a bank", unknown[0], schema.names)
    column = table.column("embedding")
    if not pa.types.is_fixed_size_list(column.type) or column.type.list_size != dim:
        raise UserError(f"The embedding column is {column.type}, not a list of {dim} floats.")
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise UserError(f"The rows do not fit the schema of a bank: {error}.") from error


def _check_classes(table: pa.Table, metadata: BankMetadata) -> None:
    ids = table.column("prompt_id")
    if len(pc.unique(ids)) != len(ids):
        counts = pc.value_counts(ids)
        twice = next(entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1)
        raise UserError(f"Two rows have the prompt id {twice!r}.", "Ids must be unique in a bank.")
    used = table.group_by(["dataset", "class_id", "class_name"]).aggregate([]).to_pylist()
    for row in used:
        names = metadata.of(row["dataset"]).class_names
        if not 0 <= row["class_id"] < len(names):
            raise UserError(
                f"Class id {row['class_id']} of {row['dataset']} is not in its class names "
                f"(0 to {len(names) - 1})."
            )
        if names[row["class_id"]] != row["class_name"]:
            raise UserError(
                f"Class {row['class_id']} of {row['dataset']} is called "
                f"{names[row['class_id']]!r} in the metadata, but {row['class_name']!r} in a row."
            )


class _Gather:
    """Rows of embeddings that lie in several blocks, in any order, without joining the blocks."""

    def __init__(self, blocks: list[np.ndarray], dim: int) -> None:
        self._blocks, self._dim = blocks, dim
        self._starts = np.cumsum([0, *(len(block) for block in blocks)])

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), self._dim), np.float32)
        block_of = np.searchsorted(self._starts, rows, side="right") - 1
        for index in np.unique(block_of):
            here = block_of == index
            out[here] = self._blocks[index][rows[here] - self._starts[index]]
        return out


class _HashingStream:
    """A binary file for Arrow to write to, which hashes what passes and knows its position."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._digest, self._position = stream, hashlib.sha256(), 0
        self.closed = False

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self._position += len(data)
        return self._stream.write(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self.closed = True

    def take_digest(self) -> str:
        """Return the hash of everything since the last call."""
        digest, self._digest = self._digest.hexdigest(), hashlib.sha256()
        return digest


def _write_groups(
    stream: IO[bytes],
    facts: pa.Table,
    gather: _Gather,
    order: np.ndarray | None,
    metadata: BankMetadata,
    whole: ContentHash | None,
) -> Footer:
    hashing, content, groups = _HashingStream(stream), ContentHash(), []
    classes: dict[tuple[str, int], list[int]] = {}  # (data set, class) -> [start, rows, kept]
    schema = arrow_schema(metadata.dim)
    with pq.ParquetWriter(hashing, schema, **_layout(schema)) as writer:
        for part, vectors in _slices(facts, gather, order):
            _check_vectors(part, vectors, len(groups) * GROUP_ROWS)
            content.update(part, vectors)
            if whole is not None:
                whole.update(part, vectors)
            _count(classes, part, len(groups) * GROUP_ROWS)
            rows = part.append_column(schema.field("embedding"), embedding_array(vectors))
            writer.write_table(rows.cast(schema), row_group_size=GROUP_ROWS)
            end = hashing.tell()
            groups.append(
                RowGroup(
                    rows=len(vectors),
                    end=end,
                    vectors=end - vectors.nbytes,  # the last column, and its values come last
                    sha256=hashing.take_digest(),
                )
            )
        footer = Footer(
            metadata=metadata,
            rows=len(facts),
            content_hash=content.hexdigest(),
            groups=groups,
            classes=[
                ClassRows(dataset=name, class_id=number, start=start, rows=rows, kept=kept)
                for (name, number), (start, rows, kept) in classes.items()
            ],
        )
        writer.add_key_value_metadata({KEY: footer.to_json()})
    stream.flush()
    return footer


def _layout(schema: pa.Schema) -> dict[str, Any]:
    """Return Parquet's options: small columns packed, embeddings as one plain page a row group."""
    leaves = _leaves(schema)
    return {
        "compression": {**dict.fromkeys(leaves, "ZSTD"), _VECTORS: "NONE"},
        "use_dictionary": [name for name in leaves if name not in (_VECTORS, "prompt_id")],
        "column_encoding": {_VECTORS: "PLAIN"},
        "write_statistics": _STATISTICS,
        "data_page_size": 1 << 30,  # one page holds a whole column of a row group
        "write_page_checksum": True,
    }


def _leaves(schema: pa.Schema) -> list[str]:
    """Name the columns as Parquet does: the leaves of nested ones, by path."""
    leaves = []
    for field in schema:
        if pa.types.is_struct(field.type):
            leaves += [f"{field.name}.{child.name}" for child in field.type]
        else:
            leaves.append(_VECTORS if field.name == "embedding" else field.name)
    return leaves


def _slices(
    facts: pa.Table, gather: _Gather, order: np.ndarray | None
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    for start in range(0, len(facts), GROUP_ROWS):
        if order is None:
            rows = np.arange(start, min(start + GROUP_ROWS, len(facts)))
            yield facts.slice(start, GROUP_ROWS), gather(rows)
        else:
            rows = order[start : start + GROUP_ROWS]
            yield facts.take(pa.array(rows)), gather(rows)


def _check_vectors(part: pa.Table, vectors: np.ndarray, start: int) -> None:
    length, good = unit_length(vectors)
    kept = np.asarray(pc.equal(part.column("verdict"), KEPT))
    good |= ~kept & (length == 0)
    if not good.all():
        row = int(np.argmin(good))
        raise UserError(
            f"The embedding of prompt {part.column('prompt_id')[row].as_py()!r} has the length "
            f"{length[row]:.4g}, not 1.",
            "Embeddings of a bank are unit vectors; only a dropped prompt may have zeros.",
        )


def _count(classes: dict[tuple[str, int], list[int]], part: pa.Table, start: int) -> None:
    """Add a slice's rows to the directory of classes."""
    datasets = part.column("dataset").to_pylist()
    numbers = part.column("class_id").to_pylist()
    kept = np.asarray(pc.equal(part.column("verdict"), KEPT)).tolist()
    for offset, (dataset, number, keeps) in enumerate(zip(datasets, numbers, kept, strict=True)):
        entry = classes.setdefault((dataset, number), [start + offset, 0, 0])
        entry[1] += 1
        entry[2] += keeps

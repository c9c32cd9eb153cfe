"""The content hash of a bank: one number for "the same prompts with the same vectors".

It covers every column except ``created_at``, so the same work done twice hashes to the same value.
It does not depend on how rows are cut into row groups, on compression or on the Parquet version.
"""

# pyarrow.compute makes its functions at import, so they are unknown to the type checker:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..files import hash_value
from .schema import COLUMNS

IGNORED = "created_at"


class ContentHash:
    """Feed it the rows in bank order, any number at a time, then read ``hexdigest()``.

    Each column goes as streams of its own (validity, lengths, values), each into its own SHA-256;
    the result is the SHA-256 of these by name.
    """

    def __init__(self) -> None:
        self._streams: dict[str, hashlib._Hash] = {}

    def update(self, rows: pa.Table, vectors: np.ndarray) -> None:
        """Add rows: their columns, and their embeddings ``(n, d)`` float32."""
        for name in COLUMNS:
            if name != IGNORED:
                self._column(name, rows.column(name).combine_chunks())
        self._feed("embedding", np.ascontiguousarray(vectors, dtype="<f4"))

    def hexdigest(self) -> str:
        """Return the hash of everything fed so far, as 64 hex digits."""
        return hash_value({name: stream.hexdigest() for name, stream in self._streams.items()})

    def _column(self, name: str, column: pa.Array) -> None:
        if isinstance(column, pa.ChunkedArray):  # what combine_chunks gives for no rows
            column = pa.concat_arrays(column.chunks) if column.chunks else pa.nulls(0, column.type)
        if pa.types.is_struct(column.type):
            self._feed(f"{name}?", _numpy(column.is_valid()))
            for index in range(column.type.num_fields):
                child = pc.struct_field(column, [index])
                self._column(f"{name}.{column.type.field(index).name}", child)
        elif pa.types.is_string(column.type):
            self._feed(f"{name}?", _numpy(column.is_valid()))
            filled = column.fill_null("")
            self._feed(f"{name}#", _numpy(pc.binary_length(filled)).astype("<i4"))
            self._feed(name, "".join(filled.to_pylist()).encode("utf-8"))
        else:
            self._feed(f"{name}?", _numpy(column.is_valid()))
            values = _numpy(column.fill_null(0))
            self._feed(name, values.astype(values.dtype.newbyteorder("<")))

    def _feed(self, name: str, data: np.ndarray | bytes) -> None:
        if name not in self._streams:
            self._streams[name] = hashlib.sha256()
        self._streams[name].update(data if isinstance(data, bytes) else data.tobytes())


def _numpy(array: pa.Array) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False)

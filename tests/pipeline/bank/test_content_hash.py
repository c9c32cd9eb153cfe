"""The content hash is the same number for ever: here it is computed again by its definition."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
from random_bank import metadata, rows

from aape.pipeline.bank import write_bank


def _streams(name: str, values: list[Any], kind: pa.DataType) -> Iterator[tuple[str, bytes]]:
    """Validity, lengths of texts in bytes, and values, zero or empty where there is none."""
    yield f"{name}?", bytes(value is not None for value in values)
    if pa.types.is_struct(kind):
        for field in kind:
            of_field = [None if value is None else value[field.name] for value in values]
            yield from _streams(f"{name}.{field.name}", of_field, field.type)
    elif kind == pa.string():
        texts = [(value or "").encode() for value in values]
        yield f"{name}#", struct.pack(f"<{len(texts)}i", *map(len, texts))
        yield name, b"".join(texts)
    else:
        letter = {"int32": "i", "int64": "q", "double": "d"}[str(kind)]
        yield name, struct.pack(f"<{len(values)}{letter}", *[value or 0 for value in values])


def test_the_content_hash_is_that_of_its_definition(tmp_path) -> None:
    """Every column but the time; umlauts, numbers of many bytes, a prompt without sampling."""
    made = rows(9, text="Räder und 🚗", n_tokens_llm=70_000, sample_index=-2)
    made[3] = replace(made[3], seed=1 << 40, sampling=None, text="")
    bank = write_bank(tmp_path / "b.parquet", made, metadata())
    table = bank.table
    hashes = {
        stream: hashlib.sha256(data).hexdigest()
        for field in table.schema
        if field.name not in ("created_at", "embedding")
        for stream, data in _streams(field.name, table.column(field.name).to_pylist(), field.type)
    }
    vectors = [number for row in table.column("embedding").to_pylist() for number in row]
    packed = struct.pack(f"<{len(vectors)}f", *vectors)
    hashes["embedding"] = hashlib.sha256(packed).hexdigest()
    text = json.dumps(hashes, sort_keys=True, separators=(",", ":"))
    assert bank.content_hash == hashlib.sha256(text.encode()).hexdigest()

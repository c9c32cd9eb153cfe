"""Banks that somebody sealed with the right checksums, and whose footer or rows are untrue."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from random_bank import DIM, metadata, random_unit, rows

from aape.pipeline.bank import PromptBank
from aape.pipeline.bank.content import ContentHash
from aape.pipeline.bank.format import KEY, ClassRows, Footer, RowGroup, write_seal
from aape.pipeline.bank.schema import COLUMNS, arrow_schema, embedding_array, rows_to_table
from aape.pipeline.bank.verify import verify_bank
from aape.pipeline.bank.write import _HashingStream, conform
from aape.pipeline.errors import UserError

N = 30
Change = Callable[[Any], Any]


def same(value: Any) -> Any:
    return value


def forged(path: Path, footer: Change = same, facts: Change = same, vectors: Change = same) -> Path:
    """Write a sealed bank, its JSON document, columns or vectors changed before."""
    table = conform(rows_to_table(rows(N), DIM), DIM)
    table = table.sort_by([("class_id", "ascending"), ("prompt_id", "ascending")])
    true = np.asarray(table["embedding"].combine_chunks().flatten()).reshape(-1, DIM)
    content = ContentHash()
    content.update(table.select(COLUMNS), true)
    columns, written = facts(table.select(COLUMNS)), vectors(true.copy())
    field = arrow_schema(DIM).field("embedding")
    full = columns.append_column(field, embedding_array(written))
    plain = {"use_dictionary": False, "compression": "NONE", "write_statistics": False}
    with path.open("wb") as stream:
        hashing = _HashingStream(stream)
        with pq.ParquetWriter(hashing, full.schema, data_page_size=1 << 30, **plain) as writer:
            writer.write_table(full)
            end = hashing.tell()
            group = RowGroup(
                rows=N, end=end, vectors=end - 4 * DIM * N, sha256=hashing.take_digest()
            )
            classes = [
                ClassRows(dataset="toy", class_id=i, start=10 * i, rows=10, kept=8)
                for i in range(3)
            ]
            true_footer = Footer(
                metadata=metadata(), rows=N, content_hash=content.hexdigest(), groups=[group],
                classes=classes,
            )  # fmt: skip
            document = footer(copy.deepcopy(true_footer.model_dump(mode="json")))
            text = document if isinstance(document, str) else json.dumps(
                document, separators=(",", ":")
            )  # fmt: skip
            writer.add_key_value_metadata({KEY: text})
    write_seal(path, true_footer)
    return path


def test_the_forge_makes_a_sound_bank(tmp_path: Path) -> None:
    assert verify_bank(forged(tmp_path / "b.bank.parquet")).problems == []


def put(place: str, value: Any) -> Change:
    def change(document: dict[str, Any]) -> dict[str, Any]:
        *path, last = place.split(".")
        inner: Any = document
        for name in path:
            inner = inner[int(name) if name.isdecimal() else name]
        inner[last] = value
        return document

    return change


FOOTERS = [
    *[put("rows", value) for value in (-1, 29, 10**30)],
    *[put("groups.0.rows", value) for value in (-1, 0, 3, 10**18)],
    *[put("groups.0.vectors", value) for value in (-1, 4, 100, 10**18)],
    *[put("classes.0.class_id", value) for value in (-1, 1, 4, 10**9)],
    *[put("classes.0.start", value) for value in (-1, 1, 10**18)],
    *[put("classes.0.rows", value) for value in (-1, 0, 9, 11, 10**18)],
    *[put("classes.0.kept", value) for value in (-1, 11, 10**18)],
    *[put("metadata.dim", value) for value in (7, 10**9)],
    put("metadata.class_names", ["cat"]),
    put("metadata.further", [{"dataset": "toy", "class_names": ["cat"]}]),
    put("classes.0.dataset", "other"),
    put("classes", []),
    lambda document: document | {"groups": document["groups"] * 2},
    lambda document: document | {"classes": document["classes"][::-1]},
    lambda document: json.dumps(document, separators=(",", ":")).replace(
        '"rows":30', f'"rows":{"9" * 5000}', 1
    ),
]


@pytest.mark.parametrize("number", range(len(FOOTERS)))
def test_a_footer_that_is_untrue_is_refused(tmp_path: Path, number: int) -> None:
    path = forged(tmp_path / "b.bank.parquet", footer=FOOTERS[number])
    with pytest.raises(UserError, match="footer"):
        PromptBank.open(path)
    assert len(verify_bank(path).problems) == 1


def with_column(name: str, column: pa.Array) -> Change:
    return lambda table: table.set_column(table.schema.get_field_index(name), name, column)


def no_text() -> pa.Array:
    content = pa.array([b"\xff\xfe"] * N, pa.binary())
    return pa.Array.from_buffers(pa.string(), N, content.buffers())


FACTS: dict[str, Change] = {
    "numbers for texts": with_column("text", pa.array(range(N))),
    "lists for texts": with_column("text", pa.array([["a"]] * N)),
    "no texts": with_column("text", pa.nulls(N, pa.string())),
    "texts that are none": with_column("text", no_text()),
    "verdicts that are none": with_column("verdict", no_text()),
    "dates that Python lacks": with_column(
        "created_at", pa.array([2**62] * N, pa.timestamp("us", tz="UTC"))
    ),
    "a column less": lambda table: table.drop_columns(["llm"]),
    "a column more": lambda table: table.append_column("x", pa.array(["x"] * N)),
    "a column twice": lambda table: table.append_column("text", pa.array(["x"] * N)),
}


@pytest.mark.parametrize("kind", FACTS)
def test_rows_that_are_untrue_are_refused_when_they_are_read(tmp_path: Path, kind: str) -> None:
    def strict(table: pa.Table) -> pa.Table:
        changed = FACTS[kind](table)
        known = arrow_schema(DIM)
        if sorted(changed.column_names) != sorted(COLUMNS) or "that" not in kind:
            return changed
        # the schema itself is that of a bank
        return pa.Table.from_arrays(
            changed.columns, schema=pa.schema([known.field(n) for n in COLUMNS])
        )

    path = forged(tmp_path / "b.bank.parquet", facts=strict)
    with pytest.raises(UserError, match=r"cannot be read|not those of a prompt bank"):
        _ = PromptBank.open(path).table
    assert len(verify_bank(path).problems) == 1
    if "that" not in kind:
        with pytest.raises(UserError, match="not those of a prompt bank"):
            PromptBank.open(path).sql("SELECT count(*) FROM bank")


@pytest.mark.parametrize("factor", [3e18, float("nan"), 2.0, 0.5])
def test_vectors_that_are_no_unit_vectors_are_refused(tmp_path: Path, factor: float) -> None:
    """They passed silently: a search printed cosines of 10^36."""

    def longer(vectors: np.ndarray) -> np.ndarray:
        vectors[7] *= factor
        return vectors

    path = forged(tmp_path / "b.bank.parquet", vectors=longer)
    for ask in (
        lambda bank: bank.search(random_unit(1)[0]),
        lambda bank: bank.reference_embeddings(bare=True),
        lambda bank: bank.reindex("flat"),
    ):
        with pytest.raises(UserError, match="not of unit length"):
            ask(PromptBank.open(path))
    assert "not of unit length" in verify_bank(path).problems[0]

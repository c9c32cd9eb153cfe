"""What a bank holds: the columns of one prompt, and what is known about all of them.

Letters: n rows (prompts), d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from ..config import Section
from ..errors import UserError, unknown_name

SCHEMA_VERSION = 1
KEPT = "kept"
OTHER_NAME = "other name"  # the verdict of a synonym: of use, and no description
# queries of these names are no plain descriptions: what sets a class apart, and its other names
CONTRAST_PREFIX = "contrast-"
NAME_QUERY = "other-name"
_UNIT_TOLERANCE = 1e-3
_WIDEST = 100_000  # of DuckDB's arrays

_SAMPLING = pa.struct(
    [
        pa.field("temperature", pa.float64()),
        pa.field("top_p", pa.float64()),
        pa.field("max_tokens", pa.int32()),
        pa.field("other", pa.string()),  # engine-specific settings, as JSON
    ]
)

_COLUMNS: list[tuple[str, pa.DataType, bool]] = [  # name, type, may be null
    ("prompt_id", pa.string(), False),
    ("dataset", pa.string(), False),
    ("class_id", pa.int32(), False),
    ("class_name", pa.string(), False),
    ("text", pa.string(), False),
    ("query_id", pa.string(), False),
    ("query_template", pa.string(), False),
    ("llm", pa.string(), False),
    ("llm_revision", pa.string(), False),
    ("engine", pa.string(), False),
    ("engine_version", pa.string(), False),
    ("sampling", _SAMPLING, True),
    ("seed", pa.int64(), False),
    ("sample_index", pa.int32(), False),
    ("finish_reason", pa.string(), False),
    ("n_tokens_llm", pa.int32(), False),
    ("n_tokens_clip", pa.int32(), False),
    ("verdict", pa.string(), False),
    ("created_at", pa.timestamp("us", tz="UTC"), True),
]
COLUMNS = [name for name, _, _ in _COLUMNS]  # without the embedding


def embedding_type(dim: int) -> pa.DataType:
    """Return the Arrow type of the embedding column: a fixed-size list of ``dim`` floats."""
    return pa.list_(pa.field("element", pa.float32(), nullable=False), dim)


def arrow_schema(dim: int) -> pa.Schema:
    """Return the schema of version 1 for embeddings of width ``dim``."""
    fields = [pa.field(name, kind, nullable) for name, kind, nullable in _COLUMNS]
    return pa.schema([*fields, pa.field("embedding", embedding_type(dim), nullable=False)])


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One prompt with its origin and its embedding.

    ``verdict`` is ``"kept"`` or the reason why the prompt is not used; dropped prompts stay in the
    bank. ``embedding`` is ``(d,)`` float32 of unit length; a dropped prompt may have zeros.
    ``sampling`` is a mapping with the keys temperature, top_p, max_tokens, other (JSON), all
    optional, or None for prompts that no language model of ours wrote.
    """

    prompt_id: str
    dataset: str
    class_id: int
    class_name: str
    text: str
    embedding: np.ndarray
    query_id: str = ""
    query_template: str = ""
    llm: str = ""
    llm_revision: str = ""
    engine: str = ""
    engine_version: str = ""
    sampling: Mapping[str, Any] | None = None
    seed: int = 0
    sample_index: int = 0
    finish_reason: str = ""
    n_tokens_llm: int = 0
    n_tokens_clip: int = 0
    verdict: str = KEPT
    created_at: datetime | None = None


class BankDataset(Section):
    """A data set whose classes a bank describes. ``class_id`` is the index in ``class_names``."""

    dataset: str
    manifest_hash: str = ""
    class_names: list[str]


class WrittenQueries(Section):
    """Queries that the language model wrote by itself, and the sentence that it was given."""

    about: str = ""
    queries: list[str] = Field(default_factory=list)


class BankMetadata(Section):
    """What is known about a bank as a whole. Stored as JSON in the Parquet file's metadata.

    ``dataset``, ``manifest_hash`` and ``class_names`` describe the first data set; a bank that was
    made for several, or merged, lists the others in ``further``. ``own_queries`` is empty where
    the queries were those of a manifest or of a file.
    """

    schema_version: int = SCHEMA_VERSION
    dataset: str
    manifest_hash: str = ""
    class_names: list[str]
    encoder_id: str
    encoder_fingerprint: str
    dim: int = Field(ge=1, le=_WIDEST)
    preprocessing: str = ""
    tool_versions: dict[str, str] = Field(default_factory=dict)
    further: list[BankDataset] = Field(default_factory=list)
    own_queries: WrittenQueries = Field(default_factory=WrittenQueries)

    @property
    def datasets(self) -> list[BankDataset]:
        """All data sets of the bank, the first one included."""
        first = BankDataset.model_construct(  # checked already, and asked for every class
            dataset=self.dataset, manifest_hash=self.manifest_hash, class_names=self.class_names
        )
        return [first, *self.further]

    def of(self, dataset: str = "") -> BankDataset:
        """Return one data set of the bank; without a name, the only one.

        Raises:
            UserError: the name is unknown, or none was given and the bank has several.
        """
        parts = {part.dataset: part for part in self.datasets}
        if not dataset and len(parts) == 1:
            return self.datasets[0]
        if not dataset:
            raise UserError(
                f"The bank covers several data sets: {', '.join(parts)}.", "Name one of them."
            )
        if dataset not in parts:
            raise unknown_name("data set of this bank", dataset, parts)
        return parts[dataset]


def rows_to_table(rows: Iterable[PromptRow], dim: int) -> pa.Table:
    """Turn rows into a table of :func:`arrow_schema`.

    Raises:
        UserError: an embedding has another width, or a text is not valid Unicode.
    """
    rows = list(rows)
    vectors = np.zeros((len(rows), dim), np.float32)  # (n, d)
    for index, row in enumerate(rows):
        vector = np.asarray(row.embedding)
        if vector.shape != (dim,):
            raise UserError(
                f"The embedding of prompt {row.prompt_id!r} has the shape {vector.shape}, "
                f"but the bank's width is {dim}.",
                "Encode all prompts of a bank with the same encoder.",
            )
        vectors[index] = vector
    try:
        columns = [
            pa.array([getattr(row, name) for row in rows], type=kind) for name, kind, _ in _COLUMNS
        ]
    except UnicodeEncodeError as error:
        raise UserError(f"A prompt holds text that is not valid Unicode: {error}.") from error
    return pa.table([*columns, embedding_array(vectors)], schema=arrow_schema(dim))


def embedding_array(vectors: np.ndarray) -> pa.FixedSizeListArray:
    """Wrap ``(n, d)`` float32 vectors as an Arrow column, without a copy where they are aligned."""
    vectors = np.require(vectors, np.float32, ["C", "A"])
    kind = embedding_type(vectors.shape[1])
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind)


def unit_length(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the length of each of ``(n, d)`` vectors, and whether it is 1; False for NaN."""
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return length, np.abs(length - 1) <= _UNIT_TOLERANCE


def embedding_matrix(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return the embedding column as ``(n, d)`` float32."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    dim = column.type.list_size
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim) for chunk in chunks]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)

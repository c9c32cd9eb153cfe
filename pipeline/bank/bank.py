"""A prompt bank as the other stages use it: open, look up, embed, search.

Letters: n rows (prompts), c classes, k prompts of a class, d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from .footer import ClassRows, Footer, read_footer
from .schema import COLUMNS, KEPT, BankMetadata, embedding_array
from .vectors import MappedVectors


class HasFingerprint(Protocol):
    """What a bank asks of an encoder: to say who it is."""

    @property
    def fingerprint(self) -> str: ...


class PromptBank:
    """One Parquet file of prompts with their embeddings, opened for reading.

    Opening reads the footer only. Columns are decoded, and embeddings mapped, when they are used;
    every row group is checked against its checksum at its first use.
    """

    def __init__(self, path: Path, footer: Footer) -> None:
        self.path = path
        self.footer = footer
        self.vectors = MappedVectors(path, footer)
        self._decoded: dict[tuple[int, str], pa.ChunkedArray] = {}

    @classmethod
    def open(cls, path: str | Path) -> PromptBank:
        """Open a bank; takes milliseconds whatever its size.

        Raises:
            UserError: the file is absent, no bank, truncated, damaged, or of an unknown version.
        """
        path = Path(path)
        return cls(path, read_footer(path))

    @property
    def metadata(self) -> BankMetadata:
        """Data sets, class names, encoder, versions."""
        return self.footer.metadata

    @property
    def content_hash(self) -> str:
        """The hash of all rows except ``created_at``: equal banks have equal hashes."""
        return self.footer.content_hash

    @property
    def index_path(self) -> Path:
        """Where its FAISS index lies: ``cars.bank.faiss`` beside ``cars.bank.parquet``."""
        return self.path.with_suffix(".faiss")

    def __len__(self) -> int:
        return self.footer.rows

    def __repr__(self) -> str:
        names = ", ".join(part.dataset for part in self.metadata.datasets)
        return f"PromptBank({str(self.path)!r}: {names}, {len(self)} prompts)"

    @cached_property
    def _file(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.path, memory_map=True, page_checksum_verification=True)

    # --- classes ---

    @property
    def class_ids(self) -> list[int]:
        """The ids of the classes that have rows, ascending (of the only data set)."""
        return self.class_ids_of()

    def class_ids_of(self, dataset: str = "") -> list[int]:
        """The ids of the classes of a data set that have rows, ascending."""
        name = self.metadata.of(dataset).dataset
        return [number for owner, number in self._directory if owner == name]

    @cached_property
    def _directory(self) -> dict[tuple[str, int], ClassRows]:
        return {(entry.dataset, entry.class_id): entry for entry in self.footer.classes}

    def class_rows(self, class_id: int, dataset: str = "") -> ClassRows:
        """Return where the rows of a class lie; a class without rows has none.

        Raises:
            UserError: the data set has no such class.
        """
        part = self.metadata.of(dataset)
        if not 0 <= class_id < len(part.class_names):
            raise UserError(
                f"{part.dataset} has no class {class_id}.",
                f"Its ids go from 0 to {len(part.class_names) - 1}.",
            )
        empty = ClassRows(dataset=part.dataset, class_id=class_id, start=0, rows=0, kept=0)
        return self._directory.get((part.dataset, class_id), empty)

    # --- rows ---

    @cached_property
    def table(self) -> pa.Table:
        """All rows as an Arrow table; embeddings are mapped where their place in the file is
        aligned, else copied."""
        facts = [self._group_columns(index, COLUMNS) for index in range(len(self.footer.groups))]
        schema = self._file.schema_arrow.remove_metadata()
        parts = [
            part.append_column(schema.field("embedding"), embedding_array(vectors))
            for part, (_, vectors) in zip(facts, self.vectors.groups(), strict=True)
        ]
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def rows(self, start: int, stop: int, columns: Sequence[str] = COLUMNS) -> pa.Table:
        """Return columns (without embeddings) of the rows from ``start`` up to ``stop``."""
        if start >= stop:
            return self._file.schema_arrow.remove_metadata().empty_table().select(list(columns))
        first, last = self.vectors.groups_of(np.array([start, stop - 1]))
        parts = [self._group_columns(index, columns) for index in range(first, last + 1)]
        offset = self.vectors.start(first)
        return pa.concat_tables(parts).slice(start - offset, stop - start)

    def take(self, rows: np.ndarray, columns: Sequence[str] = COLUMNS) -> list[dict[str, Any]]:
        """Return columns (without embeddings) of single rows, in the order asked, as dicts."""
        return [self.rows(int(row), int(row) + 1, columns).to_pylist()[0] for row in rows]

    def _group_columns(self, index: int, columns: Sequence[str]) -> pa.Table:
        """Decode columns of a row group, once."""
        self.vectors.check(index)
        missing = [name for name in columns if (index, name) not in self._decoded]
        if missing:
            part = self._file.read_row_group(index, columns=missing)
            for name in missing:
                self._decoded[index, name] = part.column(name)
        return pa.table({name: self._decoded[index, name] for name in columns}).cast(
            pa.schema([self._file.schema_arrow.field(name) for name in columns])
        )

    def prompts(self, class_id: int, verdict: str = KEPT, dataset: str = "") -> list[str]:
        """Return the texts of a class with this verdict, in bank order; ``""`` for any verdict."""
        entry = self.class_rows(class_id, dataset)
        rows = self.rows(entry.start, entry.start + entry.rows, ["text", "verdict"])
        return [row["text"] for row in rows.to_pylist() if not verdict or row["verdict"] == verdict]

    def kept_rows(self, class_id: int, dataset: str = "") -> np.ndarray:
        """Return the row numbers of the kept prompts of a class."""
        entry = self.class_rows(class_id, dataset)
        stop = entry.start + entry.rows
        if entry.kept == entry.rows:
            return np.arange(entry.start, stop)
        verdicts = self.rows(entry.start, stop, ["verdict"]).column("verdict").to_pylist()
        return entry.start + np.flatnonzero([verdict == KEPT for verdict in verdicts])

    # --- embeddings ---

    def reference_embeddings(
        self, class_ids: Sequence[int] | None = None, dataset: str = ""
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the embeddings of the kept prompts of each class.

        Args:
            class_ids: which classes, in which order; all of the data set by default.
            dataset: which data set, for a bank that has several.

        Returns:
            ``(c, k_max, d)`` float32, padded with zeros, and the mask ``(c, k_max)`` that is True
            where a prompt is.

        Raises:
            UserError: a class has no kept prompt, or its rows are damaged.
        """
        per_class = list(self._kept_embeddings(class_ids, dataset))
        widest = max((len(vectors) for vectors in per_class), default=0)
        padded = np.zeros((len(per_class), widest, self.metadata.dim), np.float32)  # (c, k, d)
        mask = np.zeros((len(per_class), widest), bool)
        for index, vectors in enumerate(per_class):
            padded[index, : len(vectors)] = vectors
            mask[index, : len(vectors)] = True
        return padded, mask

    def mean_embeddings(
        self, class_ids: Sequence[int] | None = None, dataset: str = ""
    ) -> np.ndarray:
        """Return the mean of each class's kept embeddings, of unit length again: ``(c, d)``.

        Raises:
            UserError: a class has no kept prompt, or its rows are damaged.
        """
        means = [vectors.mean(axis=0) for vectors in self._kept_embeddings(class_ids, dataset)]
        stacked = np.array(means, np.float32).reshape(len(means), self.metadata.dim)
        return stacked / np.linalg.norm(stacked, axis=1, keepdims=True).clip(1e-12)

    def _kept_embeddings(
        self, class_ids: Sequence[int] | None, dataset: str
    ) -> Iterator[np.ndarray]:
        part = self.metadata.of(dataset)
        if class_ids is None:
            class_ids = range(len(part.class_names))
        for class_id in class_ids:
            rows = self.kept_rows(int(class_id), dataset)
            if not len(rows):
                raise UserError(
                    f"Class {class_id} ({part.class_names[class_id]!r}) of {part.dataset} has no "
                    f"kept prompt in {self.path}.",
                    "Generate prompts for it: aape generate-prompts tops up such classes.",
                )
            yield self.vectors.take(rows)

    def check_encoder(self, encoder: HasFingerprint) -> None:
        """Refuse an encoder other than the one that made the embeddings.

        Raises:
            UserError: the fingerprints differ.
        """
        if encoder.fingerprint != self.metadata.encoder_fingerprint:
            raise UserError(
                f"The bank {self.path} was encoded by {self.metadata.encoder_fingerprint}, "
                f"but the encoder here is {encoder.fingerprint}.",
                f"Use --encoder {self.metadata.encoder_id} with the same weights, or make the "
                "bank again with this encoder.",
            )

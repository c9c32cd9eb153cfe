"""A prompt bank as the other stages use it: open, look up, embed, search.

Letters: n rows (prompts), c classes, k prompts of a class, d embedding width.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from ..large_array import large_zeros
from .folder import INDEX, read_folder
from .format import REMAKE, BankFile, ClassRows, Footer, open_rows, read_footer, read_rows
from .schema import COLUMNS, KEPT, OTHER_NAME, BankMetadata, arrow_schema, embedding_array
from .vectors import MappedVectors

if TYPE_CHECKING:
    from .index import BankIndex, IndexReport
    from .search import SearchHit


class HasFingerprint(Protocol):
    """What a bank asks of an encoder: to say who it is."""

    @property
    def fingerprint(self) -> str: ...


class PromptBank:
    """Prompts with their embeddings, opened for reading: one Parquet file, or a folder of parts.

    Opening reads the footer only. Columns are decoded, and embeddings mapped, when they are used;
    every row group is checked against its checksum at its first use.
    """

    def __init__(self, path: Path, footer: Footer, files: Sequence[BankFile] = ()) -> None:
        self.path = path
        self.footer = footer
        self.files = files or [BankFile(path, footer)]
        self._in_parts = bool(files)
        self.vectors = MappedVectors(self.files, footer)
        self._identity = self._identities()
        self._opened: dict[int, pq.ParquetFile] = {}
        # Classes are mostly visited in order, and many lie in one row group.
        self._columns = lru_cache(maxsize=32)(self._read_columns)

    @classmethod
    def open(cls, path: str | Path) -> PromptBank:
        """Open a bank, a file or a folder of parts, by its footers alone.

        Raises:
            UserError: the file is absent, no bank, truncated, damaged, or of an unknown version; or
                the parts of a folder do not belong together.
        """
        path = Path(path)
        if path.is_dir():
            return cls(path, *read_folder(path))
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
        """Where its FAISS index lies: ``cars.bank.faiss`` beside ``cars.bank.parquet``.

        That of a folder lies in it.
        """
        return self.path / INDEX if self._in_parts else self.path.with_suffix(".faiss")

    def __len__(self) -> int:
        return self.footer.rows

    def __repr__(self) -> str:
        names = ", ".join(part.dataset for part in self.metadata.datasets)
        return f"PromptBank({str(self.path)!r}: {names}, {len(self)} prompts)"

    def _file(self, number: int) -> pq.ParquetFile:
        if number not in self._opened:
            self.require_unchanged()
            self._opened[number] = open_rows(self.files[number])
        return self._opened[number]

    def _identities(self) -> list[tuple[int, int, int, int]]:
        return [_identity(file.path) for file in self.files]

    def require_unchanged(self) -> None:
        """Refuse to read on where another file has taken the place of the opened one.

        Footer and vectors are read when a bank is opened, texts when they are first used: those of
        another bank would else stand beside these vectors.

        Raises:
            UserError: the file was replaced or changed.
        """
        if self._identities() != self._identity:
            raise UserError(f"The bank {self.path} changed while it was open.", "Open it again.")

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows."""
        return arrow_schema(self.metadata.dim)

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

    def kept_counts(self, dataset: str = "") -> list[int]:
        """Return how many kept prompts each class has, by the footer alone: no row is read."""
        return [self.class_rows(number, dataset).kept for number in self._classes(dataset)]

    def _classes(self, dataset: str) -> range:
        return range(len(self.metadata.of(dataset).class_names))

    def find_class(self, name: str, dataset: str = "") -> list[ClassRows]:
        """Return the classes with this id or name, over all data sets unless one is named.

        Names may repeat, so there may be several. Case matters only if two names differ by it.

        Raises:
            UserError: there is none; the nearest names are given.
        """
        parts = [self.metadata.of(dataset)] if dataset else self.metadata.datasets
        named = [(p.dataset, n, known) for p in parts for n, known in enumerate(p.class_names)]
        found = [(owner, number) for owner, number, known in named if known == name]
        if not found and name.isdecimal():
            found = [(owner, number) for owner, number, _ in named if number == int(name)]
        if not found:
            folded = name.casefold()
            found = [(owner, n) for owner, n, known in named if known.casefold() == folded]
        if not found:
            near = difflib.get_close_matches(name, {known for *_, known in named}, cutoff=0.4)
            guess = f"Nearest: {', '.join(map(repr, near))}. " if near else ""
            raise UserError(
                f"The bank has no class {name!r}.", f"{guess}List them with: aape bank stats."
            )
        return [self.class_rows(number, owner) for owner, number in found]

    # --- rows ---

    @cached_property
    def table(self) -> pa.Table:
        """All rows as an Arrow table. Embeddings are mapped where they lie aligned in the file."""
        parts = [self.group_table(index) for index in range(len(self.footer.groups))]
        return pa.concat_tables(parts) if parts else self.schema.empty_table()

    def group_table(self, index: int) -> pa.Table:
        """Return the rows of one row group, embeddings included."""
        column = embedding_array(self.vectors.group(index))
        facts = self._columns(index, tuple(COLUMNS))
        return facts.append_column(self.schema.field("embedding"), column)

    def rows(self, start: int, stop: int, columns: Sequence[str] = COLUMNS) -> pa.Table:
        """Return columns (without embeddings) of the rows from ``start`` up to ``stop``."""
        if start >= stop:
            return self.schema.empty_table().select(list(columns))
        first, last = self.vectors.groups_of(np.array([start, stop - 1]))
        parts = [self._columns(index, tuple(columns)) for index in range(first, last + 1)]
        return pa.concat_tables(parts).slice(start - self.vectors.start(first), stop - start)

    def _read_columns(self, index: int, columns: tuple[str, ...]) -> pa.Table:
        """Decode columns of a row group, after checking its bytes."""
        self.vectors.check(index)
        number, own = self.vectors.place(index)
        fields = [self.schema.field(name) for name in columns]
        return read_rows(self._file(number), own, fields, self.files[number].path)

    def require_columns(self) -> None:
        """Refuse files whose columns are not those of a bank.

        Raises:
            UserError: they are not.
        """
        for number in range(len(self.files)):
            self._file(number)

    def other_names(self, dataset: str = "") -> list[list[str]]:
        """Return the other names of each class that a language model knew, in bank order."""
        classes = self._classes(dataset)
        return [self.prompts(class_id, OTHER_NAME, dataset) for class_id in classes]

    def prompts(self, class_id: int, verdict: str = KEPT, dataset: str = "") -> list[str]:
        """Return the texts of a class with this verdict, in bank order; ``""`` for any verdict."""
        entry = self.class_rows(class_id, dataset)
        if not entry.rows:
            return []
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
        self, class_ids: Sequence[int] | None = None, dataset: str = "", *, bare: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the embeddings of the kept prompts of each class.

        Args:
            class_ids: which classes, in which order; all of the data set by default.
            dataset: which data set, for a bank that has several.
            bare: a class without a kept prompt has a row of zeros, instead of an error.

        Returns:
            ``(c, k_max, d)`` float32, padded with zeros, and the mask ``(c, k_max)`` that is True
            where a prompt is. More than a gigabyte lies in an unnamed file of the cache folder.

        Raises:
            UserError: a class has no kept prompt, its rows are damaged, or the disk is full.
        """
        class_ids = self._classes(dataset) if class_ids is None else class_ids
        counts = np.array([self.class_rows(int(i), dataset).kept for i in class_ids], np.int64)
        read = np.flatnonzero(counts) if bare else np.arange(len(counts))
        wrong = UserError(f"The directory of {self.path} is wrong about its classes.", REMAKE)
        size = sum(file.path.stat().st_size for file in self.files)
        if counts.max(initial=0) * 4 * self.metadata.dim > size:  # a stranger's number
            raise wrong
        mask = np.arange(counts.max(initial=0)) < counts[:, None]
        padded = large_zeros((*mask.shape, self.metadata.dim))  # (c, k, d)
        kept = self._kept_embeddings([class_ids[int(number)] for number in read], dataset)
        for number, vectors in zip(read, kept):
            if len(vectors) != counts[number]:
                raise wrong
            padded[number, : len(vectors)] = vectors
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
        for class_id in self._classes(dataset) if class_ids is None else class_ids:
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
                f"Use the encoder {self.metadata.encoder_id} with the same weights, or make the "
                "bank again with this encoder.",
            )

    # --- questions ---

    def search(
        self,
        text_embedding: np.ndarray,
        k: int = 10,
        class_id: int | None = None,
        dataset: str = "",
        exact: bool = False,
    ) -> list[SearchHit]:
        """Return the ``k`` kept prompts nearest to a text embedding ``(d,)``, best first.

        Uses the FAISS index where there is one. Within a class, without an index, or with
        ``exact``, every candidate is looked at.

        Raises:
            UserError: the embedding has another width, the index is of other rows, or something
                is damaged.
        """
        from .search import search_prompts

        return search_prompts(self, text_embedding, k, class_id, dataset, exact)

    @cached_property
    def index(self) -> BankIndex:
        """Its FAISS index, opened when it is first searched.

        Raises:
            UserError: there is none, it is damaged, or it belongs to other rows.
        """
        from .index import BankIndex

        return BankIndex(self)

    def reindex(self, kind: str = "auto") -> IndexReport:
        """Build the FAISS index of this bank again; see :func:`.index.build_index`."""
        from .index import build_index

        self.__dict__.pop("index", None)
        return build_index(self, kind)

    def sql(self, query: str) -> pa.Table:
        """Run one SELECT over the views ``bank`` and ``classes``; see :mod:`.sql`.

        Raises:
            UserError: it is not a SELECT, or DuckDB refuses it.
        """
        from .sql import run_sql

        return run_sql(self, query)


def _identity(path: Path) -> tuple[int, int, int, int]:
    """Return what tells a file from another that takes its name."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

"""Embeddings mapped from the bank's file: nothing is read until it is used, nothing is decoded.

The writer stores each row group's embeddings as one plain, uncompressed page, so the floats lie in
the Parquet file as they lie in memory; the footer says where.

Letters: n rows, d embedding width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import UserError
from .format import REMAKE, BankFile, Footer
from .schema import unit_length


class MappedVectors:
    """The ``(n, d)`` float32 embeddings of a bank.

    The first use of a row group checks its bytes against the checksum, so a damaged bank is never
    used silently.
    """

    def __init__(self, files: Sequence[BankFile], footer: Footer) -> None:
        """Take the files of a bank, and the footer of all their rows."""
        self._files, self._footer = files, footer
        self._bytes = [np.memmap(path, np.uint8, "r") for path, _ in files]
        # (file, row group in it) of every row group
        self._places = [
            (number, index)
            for number, (_, own) in enumerate(files)
            for index in range(len(own.groups))
        ]
        self._starts = np.cumsum([0, *(group.rows for group in footer.groups)])
        self._checked: set[int] = set()

    def group(self, index: int) -> np.ndarray:
        """Return a row group's embeddings as a read-only view of the file, perhaps unaligned.

        Raises:
            UserError: the row group is damaged.
        """
        self.check(index)
        return self._mapped(index)

    def _mapped(self, index: int) -> np.ndarray:
        group, dim = self._footer.groups[index], self._footer.metadata.dim
        end = group.vectors + 4 * dim * group.rows
        data = self._bytes[self._places[index][0]]
        return np.frombuffer(data[group.vectors : end], "<f4").reshape(-1, dim)

    def place(self, index: int) -> tuple[int, int]:
        """Return in which file a row group lies, and which of its row groups it is."""
        return self._places[index]

    def groups(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, embeddings) of every row group."""
        for index in range(len(self._footer.groups)):
            yield int(self._starts[index]), self.group(index)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return a copy of the embeddings of ``rows``, ``(len(rows), d)``."""
        out = np.empty((len(rows), self._footer.metadata.dim), np.float32)
        group_of = self.groups_of(rows)
        for index in np.unique(group_of):
            here = np.flatnonzero(group_of == index)
            out[here] = self.group(index)[rows[here] - self._starts[index]]
        return out

    def groups_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the row group in which each row lies."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def start(self, index: int) -> int:
        """Return the first row of a row group."""
        return int(self._starts[index])

    def check(self, index: int) -> None:
        """Compare a row group's bytes with its checksum, once.

        Raises:
            UserError: they differ; the error names the row group and its classes.
        """
        if index in self._checked:
            return
        if not self.intact(index):
            wrong = "is damaged"
        elif not self.of_length(index):
            wrong = "has vectors that are not of unit length"
        else:
            self._checked.add(index)
            return
        path = self._files[self._places[index][0]].path
        raise UserError(f"The bank {path} {wrong} in {self.describe(index)}.", REMAKE)

    def of_length(self, index: int) -> bool:
        """Say whether all vectors of a row group are of unit length, or zero as dropped ones are.

        The right checksum does not say so: a bank may come from a stranger.
        """
        length, unit = unit_length(self._mapped(index))
        return bool((unit | (length == 0)).all())

    def intact(self, index: int) -> bool:
        """Say whether a row group's bytes have their checksum."""
        number, own = self._places[index]
        groups = self._files[number].footer.groups
        start = groups[own - 1].end if own else 0
        data = self._bytes[number][start : groups[own].end].data
        return hashlib.sha256(data).hexdigest() == groups[own].sha256

    def describe(self, index: int) -> str:
        """Name a row group for a user: its number, its rows in the whole bank, and classes."""
        first, last = self.start(index), self.start(index + 1) - 1
        inside = [
            entry
            for entry in self._footer.classes
            if entry.start <= last and entry.start + entry.rows > first
        ]
        ends = [f"{entry.dataset} class {entry.class_id}" for entry in (inside[0], inside[-1])]
        classes = ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
        return f"row group {index} (rows {first} to {last}, {classes})"

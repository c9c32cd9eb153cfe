"""Rows that are computed once: a content-addressed store in a folder of safetensors shards.

A row is found by the hash of everything it depends on, so nothing stale can be reused and nothing
needs to be invalidated. Shards are written whole or not at all and never change: a process that is
killed loses the rows since its last shard, and readers need no lock.

n rows of shape (...) in a shard, beside their n keys of 16 bytes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files import exclusive, writing
from ..large_array import large_zeros
from ..progress import step
from ..store import damaged, read_shapes, read_tensors, write_tensors

KEY_BYTES = 16
# what a kill may cost those who encode into a store
SECONDS_AT_RISK = 20.0
BYTES_AT_RISK = 128 << 20
_MANY_SHARDS = 128
_SMALL_SHARD = 4096  # rows
_SHARD_ROWS = 1 << 32  # more than any shard has


def row_key(*parts: object) -> bytes:
    """Return the key of a row that depends on ``parts``, whose texts are joined unambiguously."""
    text = "\x00".join(f"{len(str(part))}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:KEY_BYTES]


class RowStore:
    """Rows of one shape and type in a folder."""

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.folder = folder
        self.shape = shape
        self.dtype = np.dtype(dtype)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._shards: list[Path] = []
        self._written: list[int] = []  # rows of each, as written
        # shard and row as one number: a tuple of two would double the memory of ten million rows
        self._places: dict[bytes, int] = {}
        self._checked: set[int] = set()
        self.refresh()

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def refresh(self) -> None:
        """Read the keys of all shards again; a damaged shard is removed and said so."""
        self._shards, self._written, self._places, self._checked = [], [], {}, set()
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                shape = read_shapes(path).get("rows")
                keys = read_tensors(path, "np", names=["keys"], check=False)[0]["keys"]
                if shape != (len(keys), *self.shape):
                    raise damaged(path, f"its rows are of shape {shape}")
            except UserError as error:
                self._discard(path, error)
                continue
            self._append(path, [key.tobytes() for key in np.ascontiguousarray(keys)])

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store for writing; wait while another process fills it, then see its rows."""
        with ExitStack() as stack:
            place = self.folder / "store"
            try:
                stack.enter_context(exclusive(place, "filling"))
            except UserError as error:
                if "Another process" not in error.message:
                    raise
                step(f"Waiting for another process that fills {self.folder.name} …")
                stack.enter_context(exclusive(place, "filling", wait=True))
            self.refresh()
            yield

    def add(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """Write one shard: n keys and their (n, ...) rows."""
        if not len(keys):
            return
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        if rows.shape != (len(keys), *self.shape):
            raise ValueError(f"rows are {rows.shape}, not {(len(keys), *self.shape)}")
        table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), KEY_BYTES)
        name = hashlib.sha256(table.tobytes()).hexdigest()[:24]
        path = self.folder / f"{name}.safetensors"
        write_tensors(path, {"keys": table, "rows": rows}, {})
        self._append(path, list(keys))

    def gather(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return the rows of ``keys`` as (n, ...); one shard is in memory at a time.

        More than a gigabyte of rows lies in an unnamed file beside the store.

        Raises:
            KeyError: a key is not in the store, or its shard turned out to be damaged.
        """
        result = large_zeros((len(keys), *self.shape), self.dtype, self.folder)
        places = np.fromiter((self._places[key] for key in keys), np.int64, len(keys))
        shards = places // _SHARD_ROWS
        order = np.argsort(shards, kind="stable")
        starts = np.flatnonzero(np.diff(shards[order], prepend=-1))
        for positions in np.split(order, starts[1:]) if len(order) else ():
            shard = int(shards[positions[0]])
            result[positions] = self._rows(shard)[places[positions] % _SHARD_ROWS]
        return result

    def merge(self) -> None:
        """Join small shards when there are many of them. Call it within :meth:`writing`."""
        # of large ones there may be thousands: to touch them for each new photo would take minutes
        if sum(rows < _SMALL_SHARD for rows in self._written) < _MANY_SHARDS:
            return
        counts = np.zeros(len(self._shards), dtype=int)
        for place in self._places.values():
            counts[place // _SHARD_ROWS] += 1
        small = {shard for shard, count in enumerate(counts) if count < _SMALL_SHARD}
        keys = [key for key, place in self._places.items() if place // _SHARD_ROWS in small]
        old = [self._shards[shard] for shard in small]
        for start in range(0, len(keys), _SMALL_SHARD):
            part = keys[start : start + _SMALL_SHARD]
            self.add(part, self.gather(part))
        kept = {self._shards[place // _SHARD_ROWS] for place in self._places.values()}
        for path in old:
            if path not in kept:
                path.unlink(missing_ok=True)
        self.refresh()

    def _append(self, path: Path, keys: list[bytes]) -> None:
        first = len(self._shards) * _SHARD_ROWS
        self._shards.append(path)
        self._written.append(len(keys))
        self._places.update((key, first + row) for row, key in enumerate(keys))

    def _rows(self, number: int) -> np.ndarray:
        path = self._shards[number]
        new = number not in self._checked
        try:
            tensors, notes = read_tensors(path, "np", names=["rows"], check=new)
            rows = tensors["rows"]
            if new and "crc32" in notes and f"{zlib.crc32(rows.data):08x}" != notes["crc32"]:
                raise damaged(path, "its checksum does not agree")  # of the first versions
        except UserError as error:
            self._discard(path, error)
            raise KeyError(error.message) from error
        self._checked.add(number)
        return rows

    def _discard(self, path: Path, error: UserError) -> None:
        if path.exists():  # otherwise another process has merged it meanwhile
            step(f"{error.message} It is removed, and what it held is computed again.")
            path.unlink(missing_ok=True)

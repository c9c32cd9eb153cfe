"""An index of photos that is kept: FAISS finds vectors by content, a table finds content by path.

It lies in the cache folder, named by all that decides the vectors (encoder, preprocessing, what of
a photo is compared) and by the folders that were named. A photo that was added costs one photo, one
that was moved or renamed nothing, and a search of folders where nothing changed opens no photo: it
lists the files, compares size and times of change with the table, and reads two files.

n photos, d width of the joint space.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...pipeline.embed.image_cache import what_decides_rows
from ...pipeline.errors import UserError
from ...pipeline.files import cache_folder, exclusive, hash_file, hash_value
from ...pipeline.progress import step
from ...pipeline.store import damaged, finished, finished_record, write_record, write_tensors
from .listed_photos import listed_photos, open_photos

if TYPE_CHECKING:
    from ...pipeline.encoders.base import Encoder

_VERSION = 1
_AT_ONCE = 2048  # photos between two additions; their features are kept by themselves
# A file that changed this shortly before it was looked at may change again within the same tick of
# the file system's clock, and would then look as it was: it is hashed again the next time.
_FRESH_NS = 2_000_000_000
_SHOWN = 5
_TABLE, _VECTORS = "photos.json", "vectors.safetensors"
_OLD = "photos.faiss"  # the vectors as the first versions kept them

Stamp = tuple[int, int, int]  # size in bytes, times of change of content and of entry in ns


class Compared(Protocol):
    """What of a photo is compared: its feature ``x``, or what a run makes of it."""

    @property
    def key(self) -> str:
        """What tells it from other ways of comparing."""
        ...

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Map image features (n, d) to the vectors that are searched, (n, d), unit length."""
        ...


@dataclass
class _Table:
    """Which content each path had, and when that was looked at."""

    photos: dict[str, tuple[Stamp, str]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Why a content is no photo, by content."""
    looked_ns: int = 0
    hashed: int = 0
    """How many files had to be read to know their content."""
    lost: dict[str, str] = field(default_factory=dict)
    """Why a file cannot be read at all, by path; tried again the next time."""


@dataclass(frozen=True)
class Update:
    """What bringing an index up to date did."""

    photos: int
    added: int
    """Contents that were encoded or read from the feature cache."""
    removed: int
    seconds: float

    def __str__(self) -> str:
        changes = [f"{self.added:,} added"] * bool(self.added)
        changes += [f"{self.removed:,} removed"] * bool(self.removed)
        what = ", ".join(changes) or "none changed"
        return f"{self.photos:,} photos in the index, {what} ({self.seconds:.2f} s)."


class PhotoIndex:
    """The photos below some folders, as one of the :class:`Compared` sees them."""

    def __init__(self, photos: Sequence[str | Path], encoder: Encoder, compared: Compared) -> None:
        """Open the index, and bring it up to date.

        Raises:
            UserError: there are no photos, or none can be read.
        """
        self.encoder, self.compared = encoder, compared
        roots = sorted({str(Path(given).absolute()) for given in photos})
        key = hash_value([_VERSION, *what_decides_rows(encoder), compared.key, roots])[:24]
        self.folder = cache_folder("search", key)
        here = str(Path.cwd())  # joined as texts: Path.absolute would take a second for 10,000
        self.given = {os.path.join(here, path): path for path in listed_photos(photos)}  # noqa: PTH118
        self._paths: dict[int, list[Path]] = {}
        with exclusive(self.folder / "index", "updating", wait=True):
            self.update = self._bring_up_to_date()

    def search(self, query: np.ndarray, k: int, leave_out: str = "") -> list[tuple[Path, float]]:
        """Return the ``k`` photos nearest to ``query`` (d,) with their cosines, best first.

        Copies of a photo follow each other. ``leave_out`` is the hash of a content.
        """
        more = bool(leave_out) and id_of(leave_out) in self._paths
        wanted = min(k + more, self._index.ntotal)
        cosines, ids = self._index.search(np.ascontiguousarray(query[None], np.float32), wanted)
        hits = [
            (path, float(cosine))
            for number, cosine in zip(ids[0].tolist(), cosines[0].tolist())
            if not (more and number == id_of(leave_out))
            for path in self._paths[number]
        ]
        return hits[:k]

    def _bring_up_to_date(self) -> Update:
        began = time.perf_counter()
        old, self._index = self._read()
        table = self._look(old)
        places: dict[int, tuple[str, str]] = {}  # a content and one file that has it, by id
        for path, (_, content) in table.photos.items():
            places.setdefault(id_of(content), (content, path))
        there = set(_ids(self._index).tolist())
        known = there | {id_of(content) for content in table.unreadable}
        gone = there - places.keys()
        lacking = [number for number in places if number not in known]
        if gone:
            self._index.remove_ids(np.array(sorted(gone), np.int64))
        for start in range(0, len(lacking), _AT_ONCE):
            part = [places[number] for number in lacking[start : start + _AT_ONCE]]
            self._add(part, table)
        if table.unreadable or table.lost:
            self._say_unreadable(table)
        if not self._index.ntotal:
            raise UserError("None of the photos can be read.")
        if gone or lacking or table.hashed or table.photos.keys() != old.photos.keys():
            self._write(table)
        for path, (_, content) in table.photos.items():
            if content not in table.unreadable:
                self._paths.setdefault(id_of(content), []).append(self.given[path])
        added = len(lacking) - len(table.unreadable.keys() - old.unreadable.keys())
        seconds = time.perf_counter() - began
        return Update(sum(map(len, self._paths.values())), added, len(gone), seconds)

    def _look(self, old: _Table) -> _Table:
        """Return the table as the files are now; content is read only where it may have changed."""
        table = _Table(looked_ns=time.time_ns())
        unknown: list[str] = []
        stamps: dict[str, Stamp] = {}
        for path, given in self.given.items():
            try:
                status = given.stat()
            except OSError as error:  # gone since it was listed, or a broken link
                table.lost[path] = error.strerror or str(error)
                continue
            stamps[path] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            stamp, content = old.photos.get(path, (None, ""))
            settled = max(stamps[path][1:]) < old.looked_ns - _FRESH_NS
            if stamp == stamps[path] and settled:
                table.photos[path] = (stamps[path], content)
            else:
                unknown.append(path)
        table.hashed = len(unknown)
        with ThreadPoolExecutor(8) as pool:
            for path, (content, why) in zip(unknown, pool.map(_content, unknown)):
                if content:
                    table.photos[path] = (stamps[path], content)
                else:
                    table.lost[path] = why
        present = {content for _, content in table.photos.values()}
        table.unreadable = {c: why for c, why in old.unreadable.items() if c in present}
        return table

    def _add(self, part: Sequence[tuple[str, str]], table: _Table) -> None:
        """Add contents, each with one path that has it; note those that are no photos."""
        opened = open_photos(self.encoder, [self.given[path] for _, path in part])
        table.unreadable |= {part[i][0]: why for i, why in opened.unreadable.items()}
        if opened.kept:
            vectors = np.ascontiguousarray(self.compared(opened.x), np.float32)
            ids = np.array([id_of(part[i][0]) for i in opened.kept], np.int64)
            self._index.add_with_ids(vectors, ids)

    def _say_unreadable(self, table: _Table) -> None:
        named = [
            f"{self.given[path]} ({table.unreadable[content]})"
            for path, (_, content) in table.photos.items()
            if content in table.unreadable
        ] + [f"{self.given[path]} ({why})" for path, why in table.lost.items()]
        shown = "; ".join(named[:_SHOWN]) + ("; …" if len(named) > _SHOWN else "")
        step(f"{len(named):,} of {len(self.given):,} photos cannot be read: {shown}")

    def _read(self) -> tuple[_Table, Any]:
        """Return table and index as they were left; what of them is lost is made again.

        The two need not be of one moment: a vector that no photo has is removed, one that a photo
        lacks is added.
        """
        import faiss

        index = faiss.IndexIDMap2(faiss.IndexFlatIP(self.encoder.dim))
        if (self.folder / _OLD).exists():
            step(
                f"The index of photos in {self.folder} is of an earlier version; it is made again."
            )
            return _Table(), index
        vectors, ids = self._read_vectors()
        if len(ids):
            index.add_with_ids(vectors, ids)
        table = self._read_table()
        if not len(ids):
            table.unreadable.clear()  # all photos are looked at again
        return table, index

    def _read_table(self) -> _Table:
        path = self.folder / _TABLE
        raw = finished_record(path)
        if raw is None:
            return _Table()
        try:
            photos = {path: ((a, b, c), content) for path, a, b, c, content in raw["photos"]}
            return _Table(photos, dict(raw["unreadable"]), int(raw["looked_ns"]))
        except (ValueError, KeyError, TypeError) as error:
            step(f"{damaged(path, f'{error!r}').message} It is made again.")
            return _Table()

    def _read_vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors (n, d) and the numbers (n,) of their contents."""
        path = self.folder / _VECTORS
        if (kept := finished(path, "np")) is not None:
            vectors, ids = (kept[0].get(name, np.zeros(0)) for name in ("vectors", "ids"))
            found = (vectors.shape, vectors.dtype, ids.dtype)
            if found == ((len(ids), self.encoder.dim), np.float32, np.int64):
                return vectors, ids
            step(f"{damaged(path, 'its vectors have another shape').message} They are made again.")
        return np.zeros((0, self.encoder.dim), np.float32), np.zeros(0, np.int64)

    def _write(self, table: _Table) -> None:
        vectors = self._index.index.reconstruct_n(0, self._index.ntotal)
        write_tensors(self.folder / _VECTORS, {"vectors": vectors, "ids": _ids(self._index)}, {})
        about = {
            "encoder": self.encoder.fingerprint,
            "compared": self.compared.key,
            "looked_ns": table.looked_ns,
            "unreadable": table.unreadable,
            "photos": [[path, *stamp, content] for path, (stamp, content) in table.photos.items()],
        }
        write_record(self.folder / _TABLE, about)
        (self.folder / _OLD).unlink(missing_ok=True)


def id_of(content: str) -> int:
    """Return the number under which FAISS keeps a content: 63 bits of its SHA-256."""
    return int(content[:16], 16) >> 1


def _content(path: str) -> tuple[str, str]:
    """Return the hash of a file, or why it cannot be read."""
    try:
        return hash_file(path), ""
    except OSError as error:
        return "", error.strerror or str(error)
    except UserError as error:
        return "", error.message


def _ids(index: Any) -> np.ndarray:
    import faiss

    return faiss.vector_to_array(index.id_map)

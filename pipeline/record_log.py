"""Records by key, added while work goes on: a folder of small files of lines, each whole or absent.

A log grows while it is used and is never written anew, so it is not one file of :mod:`.store` but
many of them, in the order of their numbers: a kill loses nothing that was finished, and a damaged
file is noticed and its work done again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from .errors import UserError
from .progress import step
from .store import read_lines, write_lines

T = TypeVar("T")

_MERGE_ABOVE = 64
_FILE = re.compile(r"(\d{1,18})-[0-9a-f]+\.jsonl", re.ASCII)


class RecordLog(Generic[T]):
    """What was finished, by key. One process at a time may append: hold a lock for the folder.

    Args:
        folder: where the files lie; made when the first record comes.
        to_json: a record, its key included, as a JSON object.
        from_json: the key and the record again, or nothing where the object is not what it should
            be.
    """

    def __init__(
        self,
        folder: str | Path,
        to_json: Callable[[str, T], Mapping[str, Any]],
        from_json: Callable[[Any], tuple[str, T] | None],
    ) -> None:
        self.folder = Path(folder)
        self._to_json, self._from_json = to_json, from_json
        self._records: dict[str, T] = {}
        self._next = 0
        for number, path in self._files():
            self._next = number + 1
            for key, record in self._read(path):
                self._records.setdefault(key, record)

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __getitem__(self, key: str) -> T:
        return self._records[key]

    def __len__(self) -> int:
        return len(self._records)

    def add(self, records: Mapping[str, T]) -> None:
        """Keep records; those that are here already are not written again.

        Raises:
            UserError: the disk is full or the folder cannot be written to.
        """
        new = {key: record for key, record in records.items() if key not in self._records}
        if new:
            self._write(new)
            self._records.update(new)

    def merge(self) -> None:
        """Join many small files into one. A crash in between leaves records twice, never lost."""
        files = self._files()
        if len(files) > _MERGE_ABOVE:
            self._write(self._records)
            for _, path in files:
                path.unlink(missing_ok=True)

    def _files(self) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        found = [(_FILE.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return sorted((int(match[1]), path) for match, path in found if match)

    def _write(self, records: Mapping[str, T]) -> None:
        lines = [self._to_json(key, record) for key, record in records.items()]
        write_lines(self.folder, f"{self._next:06d}", lines)
        self._next += 1

    def _read(self, path: Path) -> list[tuple[str, T]]:
        try:
            lines = read_lines(path)
        except UserError as error:
            step(f"{error.message} It is removed, and what it held is made again.")
            path.unlink(missing_ok=True)
            return []
        records = [self._from_json(line) for line in lines]
        good = [record for record in records if record is not None]
        if len(good) < len(records):
            step(f"{path}: {len(records) - len(good):,} records are malformed and made again.")
        return good

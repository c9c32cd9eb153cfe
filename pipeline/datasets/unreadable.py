"""Which photos of a data set cannot be read: by headers and ends, or by decoding every one."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..counts import counted
from ..pictures import PictureError, Unreadable, glance_at, read_picture, unreadable
from ..progress import track

_AT_ONCE = 100


def find_unreadable(
    paths: list[Path], *, decode: bool = True
) -> tuple[list[Unreadable], list[str]]:
    """Return the photos that cannot be read, and remarks about the others.

    Args:
        decode: decode every one, which finds damage inside; else look at headers and ends.
    """

    def look(path: Path) -> Unreadable | str:
        try:
            return read_picture(path, quick=True).remark if decode else glance_at(path)
        except PictureError as error:
            return unreadable(path, error)

    bad: list[Unreadable] = []
    remarks: Counter[str] = Counter()
    what = f"{'decoding' if decode else 'looking at'} images, by the hundred"
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in track(range(0, len(paths), _AT_ONCE), what):
            for seen in pool.map(look, paths[start : start + _AT_ONCE]):
                if isinstance(seen, str):
                    remarks[seen] += 1
                else:
                    bad.append(seen)
    said = [f"{counted(n, 'photo is', 'photos are')} {what}" for what, n in remarks.items() if what]
    return bad, said

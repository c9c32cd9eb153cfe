"""Photos into folders named like their labels: copies, and nothing that is there is overwritten."""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..pipeline.errors import UserError
from ..pipeline.files import atomic_path
from ..pipeline.paths import is_there

if TYPE_CHECKING:
    from .predict import Prediction

# names of devices on Windows, whatever follows the first dot
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def sort_into(folder: str | Path, predictions: Sequence[Prediction]) -> dict[str, int]:
    """Copy each photo into the folder of its best label; return how many went where.

    A photo that lies there already is not copied again; another one of the same name gets a number.
    Photos that could not be read, and those that were given open, stay where they are.

    Raises:
        UserError: ``folder`` is a file, or cannot be written.
    """
    root = Path(folder)
    if is_there(root) and not root.is_dir():
        raise UserError(f"{root} is a file, not a folder.", "Name a folder to sort into.")
    counts: dict[str, int] = {}
    for row in predictions:
        if row.path is None or not row.labels:
            continue
        name = folder_name(row.labels[0])
        _copy(row.path, root / name)
        counts[name] = counts.get(name, 0) + 1
    return counts


def folder_name(label: str) -> str:
    """Return a label as the name of one folder on any system.

    >>> folder_name("t-shirt"), folder_name("../x/y"), folder_name(" AC/DC: live? ")
    ('t-shirt', '_x_y', 'AC_DC_ live_')
    >>> folder_name(""), folder_name("con"), folder_name("...")
    ('_', 'con_', '_')
    """
    plain = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", label).strip().strip(".")[:100].strip(" .")
    if not plain:
        return "_"
    return f"{plain}_" if _RESERVED.fullmatch(plain) else plain


def _copy(photo: Path, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in _places(folder, photo):
            if not place.exists() and not place.is_symlink():
                with atomic_path(place) as part:
                    shutil.copy2(photo, part)
                return
            if place.is_file() and filecmp.cmp(photo, place, shallow=False):
                return
    except OSError as error:
        raise UserError(f"{photo} cannot be copied to {folder}: {error.strerror}.") from error


def _places(folder: Path, photo: Path) -> Iterator[Path]:
    yield folder / photo.name
    number = 2
    while True:
        yield folder / f"{photo.stem} ({number}){photo.suffix}"
        number += 1

"""Names and paths that come out of a file: a manifest, a table, a bank, an archive.

Whoever wrote the file decides them, so they never lead out of the folder they belong to.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from string import Formatter
from typing import Annotated

from pydantic import AfterValidator

from .errors import UserError

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LONGEST_PART, _LONGEST = 255, 4096  # bytes, on nearly all disks
_SHOWN = 80
_SLOTS = frozenset({"path", "folder", "name", "stem", "release"})
# Where COCO lies beside a data set that only lists COCO's photos (VQAv2, SugarCrepe).
_COCO = "../coco/"


def is_plain_name(name: str) -> bool:
    """Say whether a name can be that of one file: letters, digits, hyphens, underscores, dots.

    >>> is_plain_name("imagenet-v2"), is_plain_name("../x"), is_plain_name("/")
    (True, False, False)
    """
    return _PLAIN.fullmatch(name) is not None


def is_there(path: str | Path) -> bool:
    """Say whether there is something at a path; a link to nothing is something, too.

    >>> is_there("."), is_there("a" * 300)
    (True, False)
    """
    try:
        return Path(path).exists() or Path(path).is_symlink()
    except (OSError, ValueError):  # longer than a disk takes, or no path
        return False


def is_folder(path: str | Path) -> bool:
    """Say whether there is a folder at a path."""
    return is_there(path) and Path(path).is_dir()


def is_file(path: str | Path) -> bool:
    """Say whether there is a regular file at a path."""
    return is_there(path) and Path(path).is_file()


def inside(root: Path, name: str) -> Path:
    """Return the path that a file names below ``root``; nothing outside can be named.

    An absolute path is taken where it leads into ``root``. Symbolic links that the user put into
    ``root`` are the user's own business and are followed.

    Raises:
        UserError: the name leads out of ``root``, or is no path at all.

    >>> inside(Path("data"), "train/dog/1.jpg").as_posix()
    'data/train/dog/1.jpg'
    >>> inside(Path("data"), "../escaped.txt")
    Traceback (most recent call last):
    ...
    aape.pipeline.errors.UserError: '../escaped.txt' leads out of data. Nothing outside ...
    """
    if "\0" in name or _is_too_long(name):
        raise UserError(f"{_shown(name)} is not a path.")
    if ".." not in name and not name.startswith("/"):  # nearly all: no detour for a million photos
        return root / name
    base = Path(os.path.normpath(root.absolute()))
    path = Path(os.path.normpath(base / name))  # as text: links are not followed here
    if not path.is_relative_to(base):
        raise UserError(
            f"{name!r} leads out of {root}.",
            "Nothing outside that folder is read or written: name a path below it.",
        )
    return root / path.relative_to(base)


def _is_too_long(name: str) -> bool:
    """Say whether no disk can hold such a name: asked for it, Python raises an OSError."""
    if len(name) < _LONGEST_PART // 4:  # bytes of UTF-8 in a character
        return False
    whole = os.fsencode(name) if name.isascii() else name.encode("utf-8", "surrogatepass")
    return len(whole) >= _LONGEST or max(map(len, whole.split(b"/"))) > _LONGEST_PART


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…")


def inside_data(root: Path, name: str) -> Path:
    """Return :func:`inside`, where the photos of COCO may also lie beside ``root``."""
    if name.startswith(_COCO):
        return inside(root.parent / "coco", name[len(_COCO) :])
    return inside(root, name)


def _plain(name: str) -> str:
    if not is_plain_name(name):
        raise ValueError(f"{name!r} is no plain name: letters, digits, hyphens, underscores, dots")
    return name


def _relative(name: str) -> str:
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(f"{name!r} leads out of the folder of the data set")
    if _is_too_long(name):
        raise ValueError(f"{_shown(name)} is longer than a path can be")
    return name


def _pattern(text: str) -> str:
    _relative(text.removeprefix(_COCO))
    for _, slot, form, conversion in Formatter().parse(text):
        if slot is not None and (slot not in _SLOTS or form or conversion):
            raise ValueError(f"{text!r} has a slot other than {', '.join(sorted(_SLOTS))}")
    return text


PlainName = Annotated[str, AfterValidator(_plain)]
RelativePath = Annotated[str, AfterValidator(_relative)]
ImagePattern = Annotated[str, AfterValidator(_pattern)]

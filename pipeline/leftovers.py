"""Temporary files and folders that carry who made them, so that those of the dead can be removed.

A process that is killed cannot remove what it was writing. The next one that writes into the same
folder does, where the name says that the maker ran on this machine and is gone.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

_LONGEST = 100
_MADE = re.compile(r"\..*\.~([0-9a-f]{8})-([0-9]+)-\w+")
_swept: set[Path] = set()


def temporary_file(path: Path) -> Path:
    """Make an empty file beside ``path`` for what will take its name.

    Raises:
        OSError: the folder cannot be written to.
    """
    sweep(path.parent)
    handle, name = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
    os.close(handle)
    return Path(name)


def temporary_folder(path: Path) -> Path:
    """Make an empty folder beside ``path`` for what will take its name.

    Raises:
        OSError: the folder around it cannot be written to.
    """
    sweep(path.parent)
    return Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))


def sweep(folder: Path) -> None:
    """Remove what dead processes of this machine left in a folder; once a folder and process."""
    if folder in _swept:
        return
    _swept.add(folder)
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        found = _MADE.fullmatch(entry.name)
        if found is None or found[1] != _machine() or _alive(int(found[2])):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f".{path.name[:_LONGEST]}.~{_machine()}-{os.getpid()}-"


def _machine() -> str:
    """Return what tells this machine from others that may write into a shared folder."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _alive(pid: int) -> bool:
    if os.name == "nt":  # a signal would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True

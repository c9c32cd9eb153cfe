"""Files that are either whole or absent: atomic writes, content hashes, locks, the cache folder."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import UserError
from .leftovers import temporary_file, temporary_folder

_CHUNK = 1 << 20
_FULL = "No space left on device"
_OPENED = re.compile(r"/dev/(fd/\d+|stdin)|/proc/self/fd/\d+")
_UNWRITABLE = (
    errno.EACCES,
    errno.EEXIST,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EPERM,
    errno.ENAMETOOLONG,
)


def cache_folder(*parts: str) -> Path:
    """Return (and make) a folder below ``$AAPE_HOME``, by default ``~/.cache/aape``."""
    home = os.environ.get("AAPE_HOME")
    root = Path(home) if home else Path.home() / ".cache" / "aape"
    folder = root.joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The cache folder {folder} cannot be made: {error.strerror}.",
            "Set AAPE_HOME to a folder that you can write to.",
        ) from error
    return folder


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it over ``path`` on success.

    The content is flushed to disk before the rename, so a crash leaves the old file or the new
    one, never a part of one. On an error the temporary file is removed.

    Raises:
        UserError: the disk is full, the folder cannot be written to, or ``path`` is a folder or a
            device.
    """
    path = Path(path)
    require_replaceable(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_file(path)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # a temporary file is private; the result gets the permissions any new file would have
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        _remove(temporary)
        raise disk_error(error, path) from error
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, Exception) and _FULL in str(error):  # safetensors' and faiss's own
            raise disk_error(OSError(errno.ENOSPC, _FULL), path) from error
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its name on success.

    All files in it are flushed to disk before. ``path`` is absent or an empty folder. On an error
    the temporary folder is removed; that of a killed process goes when the next one writes here.

    Raises:
        UserError: the disk is full, or the folder around it cannot be written to.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_folder(path)
        yield temporary
        for made in temporary.rglob("*"):
            if made.is_file():
                with made.open("rb") as written:
                    os.fsync(written.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)
        if path.is_dir() and not path.is_symlink():
            with suppress(FileNotFoundError):  # another process was as far
                path.rmdir()  # only an empty one can be; Windows would not rename over it
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise disk_error(error, path) from error
        if isinstance(error, Exception) and _FULL in str(error):
            raise disk_error(OSError(errno.ENOSPC, _FULL), path) from error
        raise


def require_replaceable(path: Path) -> None:
    """Refuse what a rename would destroy: a folder, a device such as ``/dev/full``, a pipe.

    Raises:
        UserError: there is something at ``path`` that is no regular file.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return  # absent, a broken link, or unreachable: the writing itself says so
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder, not a file.", "Name a file in it.")
    if not stat.S_ISREG(mode):
        raise UserError(
            f"{path} is a device or a pipe, not a file: it would be replaced.", "Name a file."
        )


def require_regular(path: Path) -> None:
    """Refuse pipes, devices and sockets, which answer never, or without end, when they are read.

    Raises:
        OSError: there is nothing at ``path``.
        UserError: it is neither a file nor a folder.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path} is a pipe or a device, not a file.", "Name a regular file.")


def require_document(path: Path) -> None:
    """Do as :func:`require_regular`, but for what your own shell opened: ``<(command)``, a pipe.

    Raises:
        OSError: there is nothing at ``path``.
        UserError: it is neither a file nor a folder, nor opened by the shell.
    """
    if not _OPENED.fullmatch(str(path)):
        require_regular(path)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Say in one sentence why ``path`` could not be made or appended to.

    Raises:
        UserError: the disk is full, or nothing can be written there.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(error, Path(path)) from error


def disk_error(error: OSError, path: Path) -> Exception:
    """Turn the disk troubles a user can mend into a :class:`UserError`; return others unchanged."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(
            f"No space left on the disk while writing {path}.",
            "Free some space and run the same command again: finished work is kept.",
        )
    if error.errno == errno.ENOTEMPTY:
        return UserError(f"{path} was filled by something else meanwhile.", "Look at what it is.")
    nowhere = error.errno == errno.ENOENT and _is_around(error.filename, path)
    if error.errno in _UNWRITABLE or nowhere:
        return UserError(f"Cannot write {path}: {error.strerror}.", "Choose another place or name.")
    return error


def _is_around(name: Any, path: Path) -> bool:
    """Say whether a name is that of ``path``, or lies beside or above it: no other file lacks."""
    if not isinstance(name, str | os.PathLike):
        return False
    return Path(name).parent == path.parent or path.is_relative_to(name)


def _remove(path: Path | None) -> None:
    if path is not None:
        with suppress(OSError):  # gone, or nothing can be written here any more
            path.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        # a name that is no text (lone surrogates) is spelled out; in JSON it is its own escape
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically; what is not finite becomes null."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n")


def finite(value: Any) -> Any:
    """Return ``value`` with null for NaN and the infinities, which JSON does not have.

    >>> finite({"a": [1.0, float("nan")]})
    {'a': [1.0, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is absent, cannot be read, is a pipe or a device, or is not JSON.
    """
    path = Path(path)
    try:
        require_document(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(error, path) from error
    except (ValueError, RecursionError) as error:  # also bytes that are no text, deep nesting
        raise UserError(f"{path} is not valid JSON: {error}.") from error


def unreadable(error: OSError, path: str | Path) -> UserError:
    """Build the error for a file that a user named and that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} does not exist.")
    if isinstance(error, IsADirectoryError):
        return UserError(f"{path} is a folder, not a file.")
    return UserError(f"{path} cannot be read: {error.strerror}.")


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits.

    Raises:
        OSError: it cannot be read.
        UserError: it is a pipe or a device, which may have no end.
    """
    require_regular(Path(path))
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def hash_value(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def exclusive(path: str | Path, purpose: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file for the block. The lock goes with the process, also when it is killed.

    Raises:
        UserError: another process holds it (with ``wait``, its end is awaited instead), or no lock
            can be made in the folder.
    """
    from filelock import FileLock, Timeout

    place = Path(f"{path}.lock")
    lock = FileLock(place, timeout=-1 if wait else 0)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"Another process is {purpose} {path}.", "Wait for it to end, then run this again."
        ) from error
    except NotImplementedError as error:
        raise UserError(
            f"The disk of {place.parent} knows no locks.", "Choose a folder on a local disk."
        ) from error
    except OSError as error:
        raise disk_error(error, place) from error
    try:
        yield
    finally:
        lock.release()

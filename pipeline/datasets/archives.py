"""Archives of strangers: what they may hold (all inside one folder), and how they are extracted.

Python's own filters are not relied on: those before 3.11.13 and 3.12.11 let a link lead out by a
path too long to be resolved (CVE-2025-4517), and those before 3.10.12 do not exist.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from ..errors import UserError
from ..files import disk_error, writing

_CHUNK = 1 << 20
DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile,
    # numbers in headers that are none, or in a chain; zip's names in no encoding
    ValueError, LookupError, struct.error, ArithmeticError, RecursionError,
    MemoryError,  # an xz stream says how large a window to hold
)  # fmt: skip
TOO_LARGE = "it asks for more memory than there is"
# What a tar says before a member (its long name, its attributes) is held in memory as a whole.
_MOST_AT_ONCE = 1 << 24
_MOST_MEMBERS = 5_000_000
_LONGEST_PATH = 1024
_LONGEST_NAME = 255
_DEEPEST = 64
_SHOWN = 80

Parts = tuple[str, ...]


class LeadsOutside(Exception):
    """A member that would be written, or that points, outside the folder; ``args[0]`` names it."""


class _Sparing:
    """A stream of which only a little is read at once, whatever length a header states."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE:
            raise tarfile.ReadError(f"a header says to be {size:,} bytes long")
        return self._stream.read(size)


@contextmanager
def open_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar, compressed or not; take its members by :func:`members_of`.

    Raises:
        DAMAGED, OSError: it is no tar, here or while it is read.
    """
    with archive.open("rb") as stream, _tar_in(stream) as tar:
        yield tar


@contextmanager
def _tar_in(stream: IO[bytes]) -> Iterator[tarfile.TarFile]:
    with _uncompressed(stream) as plain:
        # no other compression is tried within: twice a thousandfold is a million
        with tarfile.open(fileobj=cast("IO[bytes]", _Sparing(plain)), mode="r:") as tar:
            yield tar
        # the checksum of what is compressed comes after the last member
        while plain.read(_CHUNK):
            pass


def members_of(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar, each after the one before, and not without end.

    Python before 3.11.14 and 3.12.12 goes round for ever where a size is negative (CVE-2025-8194).

    Raises:
        tarfile.ReadError: a member leads back, or there are too many.
    """
    for number, member in enumerate(tar, 1):
        if member.size < 0 or tar.offset <= member.offset:
            raise tarfile.ReadError(f"the member {member.name[:_SHOWN]!r} has a negative size")
        if number > _MOST_MEMBERS:
            raise tarfile.ReadError(f"it has more than {_MOST_MEMBERS:,} members")
        yield member


def check_tar(tar: tarfile.TarFile, room: int | None = None) -> list[tarfile.TarInfo]:
    """Return the members of a tar, all of them checked, with plain owners and permissions.

    No path and no target of a link may pass through another link: then what the text of a path
    says is where it leads.

    Args:
        tar: opened for reading.
        room: bytes that the members may have together; by default any number.

    Raises:
        LeadsOutside: a member is a device or a pipe, or leads out of the folder.
        NoRoom: the members say to be larger.
        tarfile.ReadError: as :func:`members_of`.
    """
    members, size = [], 0
    for member in members_of(tar):
        size += member.size
        if room is not None and size > room:  # at once: reading on may take hours
            raise NoRoom(size)
        members.append(member)
    links = {_key(_parts(member.name)) for member in members if member.issym()}
    for member in members:
        path = _parts(member.name)
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise LeadsOutside(member.name)
        if _passes(path, links):
            raise LeadsOutside(member.name)
        if member.issym():
            _follow(path[:-1], member, links)
        elif member.islnk() and _key(_follow((), member, links)) in links:
            raise LeadsOutside(member.name)
        member.uid, member.gid = os.getuid(), os.getgid()
        member.uname = member.gname = ""
        member.mode = 0o755 if member.isdir() else member.mode & 0o755 | 0o600
    return members


class NoRoom(Exception):
    """What an archive holds is larger than what is free; ``args[0]``: bytes, at the least."""


def check_zip(archive: zipfile.ZipFile) -> None:
    """Check all members of a zip.

    Raises:
        LeadsOutside: a member is a link or a device, or leads out of the folder.
    """
    for member in archive.infolist():
        parts = _parts(member.filename.replace("\\", "/"))
        kind = stat.S_IFMT(member.external_attr >> 16)
        drive = bool(parts) and parts[0].endswith(":")
        if drive or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise LeadsOutside(member.filename)


def _parts(name: str) -> Parts:
    """Split the path of a member; refuse absolute ones, those that climb, and absurd ones."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    long = any(len(part.encode("utf-8", "surrogateescape")) > _LONGEST_NAME for part in parts)
    if (
        name.startswith("/")
        or ".." in parts
        or "\0" in name
        or long
        or len(name) > _LONGEST_PATH
        or len(parts) > _DEEPEST
    ):
        raise LeadsOutside(name[:200])
    return parts


def _follow(start: Parts, member: tarfile.TarInfo, links: set[Parts]) -> Parts:
    """Return where a link leads, from the folder ``start``."""
    target = member.linkname
    if not target or target.startswith("/") or "\0" in target or len(target) > _LONGEST_PATH:
        raise LeadsOutside(member.name)
    here = list(start)
    for part in target.split("/"):
        if part in ("", "."):
            continue
        if _key(tuple(here)) in links or (part == ".." and not here):
            raise LeadsOutside(member.name)
        if part == "..":
            here.pop()
        else:
            here.append(part)
    return tuple(here)


def _passes(path: Parts, links: set[Parts]) -> bool:
    """Say whether one of the folders of a path is a link of the archive."""
    key = _key(path)
    return any(key[:length] in links for length in range(1, len(key)))


def _key(path: Parts) -> Parts:
    """Return a path as a disk that ignores case sees it."""
    return tuple(part.casefold() for part in path)


def is_archive(path: Path) -> bool:
    """Say whether a file is a tar, zip or Debian archive, by its name."""
    name = path.name.lower()
    return name.endswith((".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".deb"))


def extract(archive: Path, folder: Path) -> None:
    """Extract an archive; refuse it as a whole if any member would lie outside ``folder``.

    Members are checked before the first is written: see :func:`check_tar`. Links are taken
    from a tar where they lead to something inside it, never from a zip.

    Raises:
        UserError: a member leads outside, or the archive is damaged.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        if archive.suffix == ".zip":
            _extract_zip(archive, folder)
        elif archive.suffix == ".deb":
            with _deb_data(archive, folder) as data, _tar_in(data) as tar:
                _extract_tar(tar, folder)
        else:
            with open_tar(archive) as tar:
                _extract_tar(tar, folder)
    except LeadsOutside as error:
        raise _outside(archive, error.args[0]) from error
    except NoRoom as error:
        free = shutil.disk_usage(folder).free
        raise UserError(
            f"The archive holds {error.args[0] / 1e9:,.1f} GB or more, and {folder} has room for"
            f" {free / 1e9:,.1f}.",
            "Free some space, or give another --root.",
        ) from error
    except DAMAGED as error:
        raise UserError(
            f"{archive} is damaged: {str(error) or TOO_LARGE}.", "Delete it and fetch it again."
        ) from error
    except (RuntimeError, NotImplementedError) as error:  # of zipfile
        raise UserError(
            f"{archive} cannot be extracted: {error}.", "Extract it by hand, then run this again."
        ) from error
    except OSError as error:
        told = disk_error(error, folder)
        if told is error:  # not of the disk: a place in the archive that is none
            told = UserError(f"{archive} is damaged: {error}.", "Delete it and fetch it again.")
        raise told from error


def _uncompressed(stream: IO[bytes]) -> IO[bytes]:
    start = stream.read(6)
    stream.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=stream))
    if start.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.BZ2File(stream))
    if start.startswith(b"\xfd7zXZ\0"):
        return cast("IO[bytes]", lzma.LZMAFile(stream))
    return stream


def _outside(archive: Path, member: str) -> UserError:
    return UserError(
        f"{archive} has a member that leads outside its folder ({member!r}); nothing of it was"
        " extracted.",
        "Do not use this file: it is not what it should be.",
    )


def _extract_tar(tar: tarfile.TarFile, folder: Path) -> None:
    members = check_tar(tar, shutil.disk_usage(folder).free)
    options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    tar.extractall(folder, members, **options)  # checked  # nosec B202


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        check_zip(content)
        size = sum(member.file_size for member in content.infolist())
        if size > shutil.disk_usage(folder).free:
            raise NoRoom(size)
        content.extractall(folder)  # checked  # nosec B202


@contextmanager
def _deb_data(archive: Path, folder: Path) -> Iterator[IO[bytes]]:
    """Yield the member ``data.tar.*`` of a Debian package, an ``ar`` archive with plain headers."""
    with archive.open("rb") as stream, tempfile.TemporaryFile(dir=folder) as copy:
        if stream.read(8) != b"!<arch>\n":
            raise tarfile.ReadError("it is no Debian package")
        while header := stream.read(60):
            try:
                name, size = header[:16].decode("ascii").strip(), int(header[48:58])
            except ValueError as error:
                raise tarfile.ReadError("a header of the Debian package is broken") from error
            if not name.startswith("data.tar"):
                stream.seek(size + size % 2, 1)
                continue
            while size and (block := stream.read(min(size, _CHUNK))):
                size -= copy.write(block)
            copy.seek(0)
            yield copy
            return
    raise tarfile.ReadError("it is a Debian package without data")

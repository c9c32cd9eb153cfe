"""What an archive of strangers may hold: files, folders and links, all inside one folder.

Python's own filters are not relied on: those before 3.11.13 and 3.12.11 let a link lead out by a
path too long to be resolved (CVE-2025-4517), and those before 3.10.12 do not exist.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile

_LONGEST_PATH = 1024
_LONGEST_NAME = 255
_DEEPEST = 64

Parts = tuple[str, ...]


class LeadsOutside(Exception):
    """A member that would be written, or that points, outside the folder; ``args[0]`` names it."""


def check_tar(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Return the members of a tar, all of them checked, with plain owners and permissions.

    No path and no target of a link may pass through another link: then what the text of a path
    says is where it leads.

    Raises:
        LeadsOutside: a member is a device or a pipe, or leads out of the folder.
    """
    members = tar.getmembers()
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

"""Downloading data sets: resumed after a break, verified, extracted without leaving the folder."""

from __future__ import annotations

import os
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from ..errors import UserError
from ..files import cache_folder, disk_error, exclusive, hash_file
from ..paths import inside
from ..progress import bar, step
from .archive_members import LeadsOutside, check_tar, check_zip
from .manifest import Download, Manifest

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60
_IDLE_TRIES = 4


def fetch_dataset(manifest: Manifest, root: Path) -> list[Path]:
    """Download and extract everything of a data set that is free to download.

    A finished file is not fetched again, a part of one goes on where it broke off, and a file is
    kept only if its checksum fits.

    Raises:
        UserError: there is nothing to download, a server fails, a checksum differs, an archive
            wants to write outside ``root``, or the disk is full.
    """
    if not manifest.downloads:
        raise UserError(
            f"There is nothing that can be fetched of data set {manifest.name!r}.",
            manifest.get or f"See {manifest.homepage}.",
        )
    step(f"{manifest.title}: licence: {manifest.licence}")
    sizes = [download.size for download in manifest.downloads]
    at_least = "" if all(sizes) else "at least "
    step(f"{len(sizes)} files, {at_least}{sum(sizes) / 1e6:,.1f} MB, into {root}")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{root} cannot be made: {error.strerror}.", "Give another --root."
        ) from error
    files = []
    with exclusive(root / "fetch", "fetching into"):
        for download in manifest.downloads:
            path = _target(root, download.file)
            if download.extract and _mark(path).exists():
                step(f"{download.file}: fetched and extracted before")
                continue
            fetch_file(download, path)
            files.append(path)
            if download.extract and is_archive(path):
                step(f"{download.file}: extracting")
                into = _target(root, download.into)
                extract(path, into)
                for inner in download.inner:
                    archive = inside(into, inner)
                    extract(archive, archive.parent)
                _mark(path).touch()
    return files


def _target(root: Path, name: str) -> Path:
    """Return where a manifest may write: below ``root``, also once links are followed."""
    path = inside(root, name)
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"{path} is a link that leads out of {root}.", "Remove it: nothing is written there."
        )
    return path


def default_root(manifest: Manifest) -> Path:
    """Return where a fetched data set goes: ``$AAPE_DATA/<name>`` or the cache."""
    data = os.environ.get("AAPE_DATA")
    return Path(data) / manifest.name if data else cache_folder("data") / manifest.name


def _mark(path: Path) -> Path:
    """Return the file that says that an archive was extracted to its end."""
    return path.with_name(f".{path.name}.extracted")


def fetch_file(download: Download, path: Path) -> None:
    """Download one file, verified, going on from ``<file>.part`` if that is there.

    Raises:
        UserError: the server fails for good, or the checksum or size differs (the file is then
            removed, so that the next try starts afresh).
    """
    if path.exists():
        _verify(download, path, remove=False)
        step(f"{download.file}: already there")
        return
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download_all(download, part)
        _verify(download, part, remove=True)
        part.replace(path)
    except OSError as error:
        raise disk_error(error, part) from error


def _download_all(download: Download, part: Path) -> None:
    """Ask again after every break; give up after four tries that brought nothing."""
    idle = 0
    while True:
        before = _size(part)
        reason: Exception | str = "the connection broke"
        try:
            if _download(download, part):
                return
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and disk_error(error, part) is not error:
                raise
            if _is_final(error):
                raise _server_error(download, part, error) from error
            reason = error
        idle = 0 if _size(part) > before else idle + 1
        if idle == _IDLE_TRIES:
            raise _server_error(download, part, reason)
        step(f"{download.file}: {reason}; going on")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_final(error: Exception) -> bool:
    """Say whether the server refused, as opposed to failing."""
    return isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500


def _server_error(download: Download, part: Path, error: Exception | str) -> UserError:
    kept = f" {part.stat().st_size:,} bytes are kept in {part}." if part.exists() else ""
    return UserError(
        f"{download.url} cannot be downloaded: {error}.{kept}",
        "Run the same command again to go on, or get the file another way and put it in place.",
    )


def _download(download: Download, part: Path) -> bool:
    """Append to ``part`` what is left; return False if the connection ended before the end."""
    have = _size(part)
    headers = {"User-Agent": "aape", **({"Range": f"bytes={have}-"} if have else {})}
    request = urllib.request.Request(download.url, headers=headers)
    try:
        response = _opener().open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left after what we have
            return True
        raise
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        total = (have if resumed else 0) + int(length) if length else download.size
        done = have if resumed else 0
        with part.open("ab" if resumed else "wb") as stream, bar() as progress:
            task = progress.add_task(f"{download.file} (MB)", total=max(-(-total // _CHUNK), 1))
            while block := response.read(_CHUNK):
                done += stream.write(block)
                progress.update(task, completed=-(-done // _CHUNK))
    return not total or done >= total


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and https and, at a redirect too, nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _verify(download: Download, path: Path, *, remove: bool) -> None:
    size = path.stat().st_size
    problem = ""
    if download.size and size != download.size:
        problem = f"has {size:,} bytes instead of {download.size:,}"
    elif download.sha256 and hash_file(path) != download.sha256.lower():
        problem = "has another SHA-256 than the manifest says"
    if not problem:
        return
    if remove:
        path.unlink()
    what = "it was removed" if remove else f"it is left in {path.parent}"
    raise UserError(
        f"{download.file} from {download.url} {problem}; {what}.",
        "Try again without it; if it stays so, the server has another version of the file.",
    )


def is_archive(path: Path) -> bool:
    """Say whether a file is a tar, zip or Debian archive, by its name."""
    name = path.name.lower()
    return name.endswith((".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".deb"))


def extract(archive: Path, folder: Path) -> None:
    """Extract an archive; refuse it as a whole if any member would lie outside ``folder``.

    Members are checked before the first is written: see :mod:`.archive_members`. Links are taken
    from a tar where they lead to something inside it, never from a zip.

    Raises:
        UserError: a member leads outside, or the archive is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if archive.suffix == ".zip":
            _extract_zip(archive, folder)
        elif archive.suffix == ".deb":
            with _deb_data(archive, folder) as data, tarfile.open(fileobj=data) as tar:
                _extract_tar(tar, folder)
        else:
            with tarfile.open(archive) as tar:
                _extract_tar(tar, folder)
    except LeadsOutside as error:
        raise _outside(archive, error.args[0]) from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{archive} is damaged: {error}.", "Delete it and fetch it again."
        ) from error
    except OSError as error:
        raise disk_error(error, folder) from error


def _outside(archive: Path, member: str) -> UserError:
    return UserError(
        f"{archive} has a member that leads outside its folder ({member!r}); nothing of it was"
        " extracted.",
        "Do not use this file: it is not what it should be.",
    )


def _extract_tar(tar: tarfile.TarFile, folder: Path) -> None:
    members = check_tar(tar)
    options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    tar.extractall(folder, members, **options)


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        check_zip(content)
        content.extractall(folder)


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

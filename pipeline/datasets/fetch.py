"""Downloading data sets: resumed after a break, verified, extracted without leaving the folder."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPException
from pathlib import Path

from ..errors import UserError
from ..files import cache_folder, disk_error, exclusive, hash_file, write_text
from ..paths import inside
from ..progress import bar, step
from .archives import extract, is_archive
from .manifest import Download, Manifest

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60
_IDLE_TRIES = 4
_DIGITS = 18  # of a number of bytes; more is none
_NEVER = "Thu, 01 Jan 1970 00:00:00 GMT"  # as If-Range: send the file whole


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
        _forget(part)
    except OSError as error:
        raise disk_error(error, part) from error


def _download_all(download: Download, part: Path) -> None:
    """Ask again after every break; give up after four tries that brought nothing."""
    idle = 0
    best = 0
    while True:
        before = _size(part)
        reason: Exception | str = "the connection broke"
        try:
            if _download(download, part):
                return
        # ValueError: addresses, also those of a redirect, that no name can be, and odd lengths
        except (OSError, HTTPException, ValueError, OverflowError) as error:
            if isinstance(error, OSError) and disk_error(error, part) is not error:
                raise
            if _is_final(error):
                raise _server_error(download, part, error) from error
            reason = error
        # a file that is begun again and again brings nothing either
        idle = 0 if _size(part) > max(before, best) else idle + 1
        best = max(best, _size(part))
        if idle == _IDLE_TRIES:
            raise _server_error(download, part, reason)
        step(f"{download.file}: {reason}; going on")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_final(error: Exception) -> bool:
    """Say whether the server refused, or the address is none, as opposed to failing."""
    if isinstance(error, ValueError):
        return True
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
    version = _version(part)
    if have and (version or not download.sha256):
        # a file that changed since is then sent whole, not spliced; a checksum would tell as well
        headers["If-Range"] = version or _NEVER
    request = urllib.request.Request(download.url, headers=headers)
    try:
        response = _opener().open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            whole = _range(error.headers)[1]
            if whole == have or (whole is None and have == download.size):
                return True  # nothing is left after what we have
            _forget(part)  # it is longer than the file, so it is of another one
            return False
        raise
    with response:
        first, whole = _range(response.headers)
        resumed = response.status == 206
        if resumed and first != have:
            _forget(part)
            raise HTTPException(f"the server sent bytes from {first} where {have} was asked for")
        told = _named_version(response.headers)
        if resumed and version and told and told != version:
            _forget(part)  # a server that knows no If-Range
            raise HTTPException("the file changed since the beginning of it was sent")
        length = _number(response.headers.get("Content-Length"))
        done = have if resumed else 0
        total = whole if resumed and whole else done + length if length else download.size
        if download.size and total > download.size:
            raise UserError(
                f"{download.url} has {total:,} bytes; {download.size:,} are expected.",
                "Look whether the manifest names the right file.",
            )
        _remember(part, response.headers)
        most = download.size or total
        with part.open("ab" if resumed else "wb") as stream, bar() as progress:
            task = progress.add_task(f"{download.file} (MB)", total=max(-(-total // _CHUNK), 1))
            while block := response.read(_CHUNK):
                done += stream.write(block)
                if most and done > most:
                    raise UserError(f"{download.url} does not end after {most:,} bytes.")
                progress.update(task, completed=-(-done // _CHUNK))
    return not total or done >= total


def _version(part: Path) -> str:
    """Return what the server called the version that ``part`` is of, or nothing."""
    note = part.with_name(f"{part.name}.version")
    return note.read_text(encoding="utf-8") if note.exists() else ""


def _remember(part: Path, headers: Message) -> None:
    version = _named_version(headers)
    note = part.with_name(f"{part.name}.version")
    if version:
        write_text(note, version)
    else:
        note.unlink(missing_ok=True)


def _named_version(headers: Message) -> str:
    """Return what a server calls the version of a file; nothing where it does not say."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.version").unlink(missing_ok=True)


def _range(headers: Message) -> tuple[int | None, int | None]:
    """Return the first byte and the whole size that ``Content-Range`` tells, where it does."""
    found = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "").strip()
    )
    first, whole = found.groups() if found else (None, None)
    return _number(first), _number(whole)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) <= _DIGITS else None


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
        _forget(path)
    what = "it was removed" if remove else f"it is left in {path.parent}"
    raise UserError(
        f"{download.file} from {download.url} {problem}; {what}.",
        "Try again without it; if it stays so, the server has another version of the file.",
    )

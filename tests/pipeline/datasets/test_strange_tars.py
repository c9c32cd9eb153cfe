"""Tars whose headers lie, about sizes or about each other: both readers of tars say so at once."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from aape.pipeline.datasets.archives import extract
from aape.pipeline.datasets.readers.web_dataset import samples
from aape.pipeline.errors import UserError

_BLOCK = 512


def header(name: str, kind: str = "0", size: int = 0, sparse: bytes = b"") -> bytes:
    """One header in GNU's form; a size may be negative, or beyond any disk."""
    raw = bytearray(_BLOCK)
    raw[: len(name)] = name.encode()
    raw[100:136] = b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % max(0, size % 8**11)
    if not 0 <= size < 8**11:
        raw[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % 2**88).to_bytes(11, "big")
    raw[136:156] = b"%011o\0" % 0 + b" " * 8
    raw[156:157], raw[257:265] = kind.encode(), b"ustar  \0"
    if sparse:
        raw[386:483] = b"\0" * 97
        raw[483:495] = sparse
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def noted(*notes: tuple[str, str]) -> bytes:
    """A header that says something of the next one, as pax does."""
    text = b""
    for key, value in notes:
        size = len(key) + len(value) + 3
        size += len(str(size + len(str(size))))
        text += f"{size} {key}={value}\n".encode()
    return header("x", "x", len(text)) + text.ljust(-(-len(text) // _BLOCK) * _BLOCK, b"\0")


FIRST = header("b.txt")
LIES: dict[str, bytes] = {
    "a size that leads back to itself": FIRST + header("a.jpg", size=-_BLOCK),
    "a note that leads back": FIRST + noted(("size", "-2560")) + header("a.jpg"),
    "a sparse file that leads back":
        FIRST + header("a.jpg", "S", -_BLOCK, b"00000000010\0"),
    "a long name of less than nothing": header("x", "L", -1024),
    "a note of less than nothing": header("x", "x", -1024),
    "a long name longer than memory": header("x", "L", 2**70),
    "a member longer than a disk": header("a.jpg", size=2**70),
    "a note of a size longer than a disk": noted(("size", "9" * 20)) + header("a.jpg"),
    "a time that is none": noted(("mtime", "nan")) + header("a.txt"),
    "a time that no clock has": noted(("mtime", "1e300")) + header("a.txt"),
    "names of names of names": (header("x", "L", 2) + b"a\0".ljust(_BLOCK, b"\0")) * 3000,
    "notes on notes on notes": noted(("path", "a")) * 3000,
    "a sparse map that is cut": noted(("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"))
        + header("a.jpg", size=_BLOCK) + b"99999\n1\n2\n".ljust(_BLOCK, b"\0"),
}  # fmt: skip


def outcome(read: Callable[[Path], object], path: Path) -> str:
    try:
        read(path)
    except UserError as error:
        return error.message
    return ""


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie_are_one_sentence(tmp_path: Path, monkeypatch, lie: str) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    path = tmp_path / "a.tar"
    path.write_bytes(LIES[lie] + header("last.txt") + bytes(2 * _BLOCK))
    said = outcome(lambda tar: extract(tar, tmp_path / "out"), path)
    assert "is damaged" in said or "The archive holds" in said
    assert not (tmp_path / "out" / "last.txt").exists()
    outcome(lambda tar: list(samples(tar)), path)  # ends, and by no other error


def test_a_long_name_that_swells_is_not_unpacked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    path, length = tmp_path / "a.tar.gz", 1 << 25  # 32 kB on the disk
    with gzip.open(path, "wb") as stream:
        stream.write(header("x", "L", length) + bytes(length) + header("a.jpg") + bytes(1024))
    for read in (lambda tar: extract(tar, tmp_path / "out"), lambda tar: list(samples(tar))):
        assert f"a header says to be {length:,} bytes long" in outcome(read, path)
    with gzip.open(path, "wb") as stream:  # as long as names really are
        name = "d/" * 60 + "a.txt"
        stream.write(header("x", "L", len(name)) + name.encode().ljust(_BLOCK, b"\0"))
        stream.write(header("short.txt") + bytes(1024))
    extract(path, tmp_path / "out")
    assert (tmp_path / "out" / name).is_file()


def test_what_is_larger_than_the_disk_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(header("a.bin", size=2**50) + b"\xff" * 4096)  # what follows is no tar
    assert "1,125,899.9 GB or more" in outcome(lambda tar: extract(tar, tmp_path / "out"), path)

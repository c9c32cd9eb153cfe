"""`fetch`: a server on loopback that breaks off, lies and sends archives with bad intentions."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from aape.pipeline.datasets.archives import extract
from aape.pipeline.datasets.dataset import candidate_roots
from aape.pipeline.datasets.fetch import default_root, fetch_dataset, fetch_file
from aape.pipeline.datasets.manifest import Download, Manifest
from aape.pipeline.errors import UserError


class FakeServer(ThreadingHTTPServer):
    """Serves ``content`` with ranges; breaks off after ``patience`` bytes a request, if set."""

    content: bytes = b""
    patience: int = 0
    status: int = 0
    good: int = 1 << 30  # requests answered before the server is overloaded
    ranges: bool = True
    honours: bool = True  # If-Range
    headers: dict[str, str] | None = None  # instead of its own, and nothing else is said
    shifted: int = 0  # what the server says a range begins at, if not where it was asked for
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append(wanted)
        if self.server.status or len(self.server.asked) > self.server.good:
            self.send_error(self.server.status or 503)
            return
        if self.server.headers:
            self.send_response(302 if "Location" in self.server.headers else 200)
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"-5\r\nab\r\n")
            return
        tag = f'"{zlib.crc32(self.server.content)}"'
        same = not self.server.honours or self.headers.get("If-Range", tag) == tag
        start = int(wanted[6:-1]) if wanted and self.server.ranges and same else 0
        size = len(self.server.content)
        if wanted and start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.end_headers()
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            first = self.server.shifted or start
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.patience] if self.server.patience else body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test output clean."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def download(server: FakeServer) -> Callable[..., Download]:
    def make(file: str = "data.bin", **more) -> Download:
        url = f"http://127.0.0.1:{server.server_port}/{file}"
        return Download(url=url, file=file, **more)

    return make


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_broken_connection_is_taken_up_where_it_broke(server, download, tmp_path) -> None:
    server.content = bytes(range(256)) * 4000
    server.patience = 400_000
    wanted = download(sha256=sha256(server.content), size=len(server.content))
    fetch_file(wanted, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == server.content
    assert server.asked == ["", "bytes=400000-", "bytes=800000-"]


def test_what_came_before_giving_up_is_kept_for_the_next_run(server, download, tmp_path) -> None:
    server.content = bytes(range(256)) * 400
    server.patience, server.good = 1000, 7
    with pytest.raises(UserError, match=r"503.*7,000 bytes are kept"):
        fetch_file(download(), tmp_path / "data.bin")
    server.patience, server.good = 0, 1 << 30
    fetch_file(download(sha256=sha256(server.content)), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == server.content
    assert server.asked[-1] == "bytes=7000-"
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]


def test_a_server_without_ranges_is_read_from_the_start(server, download, tmp_path) -> None:
    server.content, server.ranges = b"0123456789", False
    (tmp_path / "data.bin.part").write_bytes(b"01234")
    fetch_file(download(sha256=sha256(server.content)), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == server.content


def test_a_complete_part_needs_no_more_bytes(server, download, tmp_path) -> None:
    server.content = b"0123456789"
    (tmp_path / "data.bin.part").write_bytes(server.content)
    fetch_file(download(sha256=sha256(server.content)), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == server.content


@pytest.mark.parametrize("fault", [{"sha256": "0" * 64}, {"size": 11}])
def test_another_checksum_or_size_removes_the_file(server, download, tmp_path, fault) -> None:
    server.content = b"0123456789"
    with pytest.raises(UserError, match=r"it was removed|broke"):
        fetch_file(download(**fault), tmp_path / "data.bin")
    assert not (tmp_path / "data.bin").exists()


def test_a_file_put_there_by_hand_is_verified_but_never_removed(server, download, tmp_path) -> None:
    (tmp_path / "data.bin").write_bytes(b"mine")
    with pytest.raises(UserError, match="it is left in"):
        fetch_file(download(sha256="0" * 64), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == b"mine"
    assert server.asked == []


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, 4)])
def test_a_refusal_is_final_and_a_failure_is_tried_again(
    server, download, tmp_path, status, requests
) -> None:
    server.status = status
    with pytest.raises(UserError, match=f"cannot be downloaded.*{status}"):
        fetch_file(download(), tmp_path / "data.bin")
    assert len(server.asked) == requests


def test_no_server_is_one_sentence(tmp_path) -> None:
    with pytest.raises(UserError, match="cannot be downloaded"):
        fetch_file(Download(url="http://127.0.0.1:9/x", file="x"), tmp_path / "x")


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], links: dict[str, str] | None = None, mode="w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def debian(data: bytes) -> bytes:
    """A Debian package: an ar archive with a version, control files and the data."""

    def member(name: str, content: bytes) -> bytes:
        header = f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(content):<10}`\n".encode("ascii")
        return header + content + b"\n" * (len(content) % 2)

    return b"!<arch>\n" + b"".join(
        [
            member("debian-binary", b"2.0\n"),
            member("control.tar.xz", tarred({"control": b"x"}, mode="w:xz")),
            member("data.tar.xz", data),
        ]
    )


def manifest_of(*downloads: Download) -> Manifest:
    return Manifest.model_validate(
        {
            "name": "tiny",
            "title": "Tiny",
            "tasks": ["captioning"],
            "layouts": [{"kind": "captioned_folders"}],
            "licence": "CC0",
            "downloads": [download.model_dump() for download in downloads],
        }
    )


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tgz", "tar.bz2", "tar.xz", "tar", "deb"])
def test_archives_are_extracted_once(server, download, tmp_path, kind) -> None:
    members = {"photos/a.txt": b"A cat."}
    server.content = {
        "zip": lambda: zipped(members),
        "deb": lambda: debian(tarred(members, mode="w:xz")),
        "tar.bz2": lambda: tarred(members, mode="w:bz2"),
        "tar.xz": lambda: tarred(members, mode="w:xz"),
        "tar": lambda: tarred(members, mode="w"),
    }.get(kind, lambda: tarred(members))()
    manifest = manifest_of(download(f"data.{kind}", sha256=sha256(server.content)))
    fetch_dataset(manifest, tmp_path)
    assert (tmp_path / "photos" / "a.txt").read_bytes() == b"A cat."
    (tmp_path / f"data.{kind}").unlink()
    fetch_dataset(manifest, tmp_path)
    assert len(server.asked) == 1, "an extracted archive may be deleted and is not fetched again"


def test_an_archive_inside_an_archive(server, download, tmp_path) -> None:
    server.content = zipped({"caltech-101/objects.tar.gz": tarred({"objects/a.txt": b"A cat."})})
    wanted = download("data.zip", inner=["caltech-101/objects.tar.gz"])
    fetch_dataset(manifest_of(wanted), tmp_path)
    assert (tmp_path / "caltech-101" / "objects" / "a.txt").read_bytes() == b"A cat."


def test_the_command_prints_the_licence_first(server, download, tmp_path, aape) -> None:
    server.content = zipped({"a.txt": b"A cat."})
    (tmp_path / "tiny.yaml").write_text(manifest_of(download("data.zip")).to_yaml())
    result = aape("datasets", "fetch", tmp_path / "tiny.yaml", "--root", tmp_path / "data")
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("Tiny: licence: CC0")
    assert result.stdout == f"tiny is in {tmp_path / 'data'}\n"
    server.status = 404
    (tmp_path / "data" / ".data.zip.extracted").unlink()
    (tmp_path / "data" / "data.zip").unlink()
    result = aape("datasets", "fetch", tmp_path / "tiny.yaml", "--root", tmp_path / "data")
    assert result.returncode == 2
    assert "cannot be downloaded: HTTP Error 404" in result.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("up.zip", zipped({"good.txt": b"x", "../evil.txt": b"x"})),
        ("absolute.zip", zipped({"good.txt": b"x", "/tmp/aape-evil.txt": b"x"})),
        ("windows.zip", zipped({"good.txt": b"x", "..\\evil.txt": b"x"})),
        ("up.tar.gz", tarred({"good.txt": b"x", "../evil.txt": b"x"})),
        ("link.tar.gz", tarred({"good.txt": b"x"}, {"link": "../outside"})),
        ("through.tar.gz", tarred({"good.txt": b"x", "link/evil.txt": b"x"}, {"link": ".."})),
        ("absolute-link.tar", tarred({"good.txt": b"x"}, {"link": "/etc"}, mode="w")),
        ("up.deb", debian(tarred({"good.txt": b"x", "../evil.txt": b"x"}, mode="w:xz"))),
    ],
)
def test_an_evil_archive_is_refused_as_a_whole(tmp_path: Path, name: str, content: bytes) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="leads outside its folder"):
        extract(tmp_path / name, folder)
    assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["data", name])


def test_a_zip_with_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="leads outside"):
        extract(tmp_path / "link.zip", tmp_path / "data")


def test_a_link_within_the_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "ok.tar.gz").write_bytes(tarred({"a.txt": b"x"}, {"b.txt": "a.txt"}))
    extract(tmp_path / "ok.tar.gz", tmp_path / "data")
    assert (tmp_path / "data" / "b.txt").read_text() == "x"


@pytest.mark.parametrize("name", ["cut.zip", "cut.tar.gz", "cut.deb"])
def test_a_damaged_archive_is_said_to_be_damaged(tmp_path: Path, name: str) -> None:
    content = {
        "cut.zip": zipped({"a": b"x" * 1000}),
        "cut.tar.gz": tarred({"a": b"x" * 1000}),
        "cut.deb": debian(tarred({"a": b"x" * 1000}, mode="w:xz")),
    }[name]
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="is damaged"):
        extract(tmp_path / name, tmp_path / "data")


def test_nothing_to_download_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing that can be fetched"):
        fetch_dataset(manifest_of(), tmp_path)


def test_a_folder_that_cannot_be_made_is_one_sentence(download, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot be made"):
        fetch_dataset(manifest_of(download()), tmp_path / "file" / "data")


def test_a_file_that_changed_since_is_fetched_whole_not_spliced(server, download, tmp_path) -> None:
    server.content = b"a" * 50_000
    server.patience, server.good = 1000, 7
    with pytest.raises(UserError, match="7,000 bytes are kept"):
        fetch_file(download(), tmp_path / "data.bin")
    server.patience, server.good, server.content = 0, 1 << 30, b"b" * 50_000
    fetch_file(download(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == server.content


def test_a_range_that_was_not_asked_for_is_never_appended(server, download, tmp_path) -> None:
    server.content, server.shifted = b"0123456789", 3
    (tmp_path / "data.bin.part").write_bytes(b"01234")
    fetch_file(download(sha256=sha256(server.content)), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == server.content


def test_a_change_is_noticed_where_the_server_knows_no_condition(
    server, download, tmp_path
) -> None:
    server.content, server.patience, server.good = b"old" * 1000, 600, 1
    with pytest.raises(UserError, match="600 bytes are kept"):
        fetch_file(download(), tmp_path / "data.bin")
    server.content, server.patience, server.good = b"new" * 1000, 0, 1 << 30
    server.honours = False
    fetch_file(download(), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == server.content


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "9" * 5000}, {"Content-Range": f"bytes 0-1/{'9' * 5000}"},
        {"Transfer-Encoding": "chunked"},  # and the length of the chunk is negative
        {"Location": "http://[bad/x"}, {"Location": f"http://{'a' * 70}/x"},
        {"Location": "http://a..b/x"},
    ],
)  # fmt: skip
def test_headers_of_a_server_that_are_none(server, download, tmp_path, headers) -> None:
    server.headers = headers
    if "Location" in headers or "Transfer-Encoding" in headers:
        with pytest.raises(UserError, match="cannot be downloaded"):
            fetch_file(download(), tmp_path / "data.bin")
    else:  # a number of so many digits says nothing
        fetch_file(download(), tmp_path / "data.bin")
        assert (tmp_path / "data.bin").read_bytes() == b"-5\r\nab\r\n"


@pytest.mark.parametrize("url", ["http://[::1/x", "http://a..b/x", "http://127.0.0.1:9/é"])
def test_an_address_that_is_none_is_one_sentence(tmp_path, url) -> None:
    with pytest.raises(UserError, match="cannot be downloaded"):
        fetch_file(Download(url=url, file="x"), tmp_path / "x")


def test_a_part_longer_than_the_file_is_not_complete(server, download, tmp_path) -> None:
    server.content = b"0123456789"
    (tmp_path / "data.bin.part").write_bytes(b"0123456789abc")
    fetch_file(download(sha256=sha256(server.content)), tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == server.content


def test_more_than_the_manifest_says_is_refused(server, download, tmp_path) -> None:
    server.content = b"0" * 5000
    with pytest.raises(UserError, match=r"5,000 bytes; 100 are expected"):
        fetch_file(download(size=100), tmp_path / "data.bin")


def test_a_compressed_tar_with_a_wrong_checksum_is_damaged(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo("a.txt")
        entry.size = 3
        tar.addfile(entry, io.BytesIO(b"abc"))
    content = bytearray(archive.read_bytes())
    content[-6] ^= 1  # in the CRC-32 of what was compressed
    archive.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        extract(archive, tmp_path / "out")


def test_an_encrypted_zip_is_one_sentence(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("a.txt", "abc")
    raw = bytearray(archive.read_bytes())
    raw[6] |= 1  # the flag "encrypted" of the member …
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # … and of the directory
    archive.write_bytes(raw)
    with pytest.raises(UserError, match="cannot be extracted"):
        extract(archive, tmp_path / "out")


def test_an_archive_that_holds_more_than_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=3)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    for name, content in [("a.zip", zipped({"a": b"four"})), ("a.tar.gz", tarred({"a": b"four"}))]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="has room for 0"):
            extract(tmp_path / name, tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())


def test_data_go_where_they_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = manifest_of()
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    for data in (str(tmp_path / "data"), ""):
        monkeypatch.setenv("AAPE_DATA", data)
        assert default_root(manifest) == candidate_roots(manifest)[0]

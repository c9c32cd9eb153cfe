"""Several processes encode into one cache: the same rows as one process, each computed once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import PixelEncoder
from PIL import Image
from processes import free_port, home_with_models, run_group, stored_keys

from aape.pipeline import ranks
from aape.pipeline.embed.image_cache import PLAIN
from aape.pipeline.embed.images import image_features
from aape.pipeline.embed.pixels import Job, pixel_batches
from aape.pipeline.embed.spread import part_of
from aape.pipeline.embed.texts import encode_texts
from aape.pipeline.errors import UserError
from aape.pipeline.files import hash_value
from aape.pipeline.ranks import joined, launch

TEXTS = [f"text {number}" for number in range(23)]
WORK = """
import json
import subprocess
import sys
from pathlib import Path
import numpy as np
from fakes import PixelEncoder
from aape.pipeline.embed.images import image_features
from aape.pipeline.embed.texts import encode_texts
from aape.pipeline.ranks import joined
from aape.pipeline.progress import step
folder = Path({folder!r})

def encode(rank):
    encoder = PixelEncoder()
    paths = sorted((folder / "pictures").glob("*"))
    with joined() as group:
        step("one voice")
        found = image_features(
            encoder, paths, views=1, tokens=True, batch_size=4, workers=0, strict=False
        )
        rows = encode_texts(encoder, {texts!r}, batch_size=4)
        again = image_features(encoder, paths, views=1, tokens=True, strict=False)
    np.savez(folder / f"{{rank}}.npz", x=found.x, views=found.views, tokens=found.tokens,
             rows=rows, kept=found.kept)
    (folder / f"{{rank}}.json").write_text(json.dumps([
        encoder.images, len(encoder.texts), found.computed, again.computed,
        [[entry.path.name, entry.reason] for entry in found.unreadable],
    ]))
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    home = home_with_models(tmp_path / "home")
    monkeypatch.setenv("AAPE_HOME", str(home))
    return home


def write_pictures(folder: Path, count: int, seed: str = "") -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(list(seed.encode()))
    paths = [folder / f"{number:02}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.mark.slow
def test_processes_make_the_cache_of_one(tmp_path: Path, own_cache: Path) -> None:
    paths = write_pictures(tmp_path / "pictures", 17)
    paths[3].write_bytes(b"no picture")
    said = run_group(WORK.format(folder=str(tmp_path), texts=TEXTS), "encode", home=own_cache)
    assert said.count("one voice") == 1  # the first alone speaks
    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    images, texts = [report[0] for report in reports], [report[1] for report in reports]
    assert (sum(images), sum(texts)) == (16 * 2, len(TEXTS))  # nothing twice
    assert min(images) >= 12  # each its half
    assert min(texts) >= 8
    assert reports[0][2:] == reports[1][2:]  # all know of all
    assert reports[0][2:4] == [16, 0]
    assert [name for name, _ in reports[0][4]] == ["03.png"]

    ours = stored_keys(own_cache)
    own_cache.rename(tmp_path / "of-two")
    one = image_features(
        PixelEncoder(), paths, views=1, tokens=True, batch_size=4, workers=0, strict=False
    )
    rows = encode_texts(PixelEncoder(), TEXTS, batch_size=4)
    assert ours == stored_keys(own_cache)
    assert reports[0][4] == [[entry.path.name, entry.reason] for entry in one.unreadable]
    for rank in range(2):
        found = np.load(tmp_path / f"{rank}.npz")
        for name in ("x", "views", "tokens", "kept"):
            assert found[name].tobytes() == getattr(one, name).tobytes(), name
        assert found["rows"].tobytes() == rows.tobytes()


def test_parts_are_whole_batches_and_everything_once() -> None:
    for count in (0, 1, 7, 64, 65):
        for size in (1, 2, 5):
            parts = [part_of(range(count), 4, rank, size) for rank in range(size)]
            assert sorted(piece for part in parts for piece in part) == list(range(count))
            cut = [part[start : start + 4] for part in parts for start in range(0, len(part), 4)]
            assert sorted(cut) == [list(range(n, min(n + 4, count))) for n in range(0, count, 4)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_who_reads(workers: int, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "pictures", 47)
    jobs = [Job(path, path.name, [PLAIN, 0]) for path in paths]
    read = pixel_batches(PixelEncoder(), jobs, 0, workers, 36)  # pyright: ignore
    assert [len(batch) for batch in read] == [18, 18, 11]


def test_what_the_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launch() is None
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert launch() == (3, 8, 1, 4)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="not those of a launcher"):
        launch()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launch() is None  # torchrun with one process
    with joined() as group:
        assert (group.rank, group.size, group.first) == (0, 1, True)
        assert group.share({"a": 1}) == {"a": 1}
        assert group.collect([2]) == [[2]]
        assert ranks.group() is group


EXCHANGE = """
import os
import torch
from aape.pipeline.errors import UserError
from aape.pipeline.files import hash_value
from aape.pipeline.ranks import joined

def exchange(rank):
    with joined() as group:
        assert group.share(["first", rank]) == ["first", 0]
        assert group.collect({{"é\\udc80": rank * "x" * 1000}})[2] == {{"é\\udc80": "x" * 2000}}
        assert group.collect(None) == [None] * 3
        tensors = [torch.full((2, 2), float(rank)), torch.tensor(1.0)]
        group.add_up(tensors)
        assert tensors[0].tolist() == [[3.0, 3.0]] * 2 and float(tensors[1]) == 3
        group.follow([tensors[1].fill_(rank)])
        assert float(tensors[1]) == 0
        group.agree("same", "this")
        try:
            group.agree(rank == 2, "that")
            raise AssertionError
        except UserError as error:
            assert "0 and 2 do not agree on that" in error.message
        if rank == 1:
            os._exit(0)  # killed: the others say so and do not wait
        try:
            for _ in range(3):
                group.wait()
            raise AssertionError
        except UserError as error:
            assert "cannot be reached" in error.message
"""


@pytest.mark.slow
def test_what_processes_tell_each_other() -> None:
    run_group(EXCHANGE.replace("{{", "{").replace("}}", "}"), "exchange", count=3)


MANIFEST = """
name: noise
title: Noise
tasks: [classification]
licence: none
classes: [grey noise, loud noise]
templates: ["a photo of {}."]
layouts: [{kind: image_folders, splits: {train: train, val: val, test: test}}]
"""


@pytest.mark.slow
def test_the_command_under_torchrun(tmp_path: Path, own_cache: Path) -> None:
    """One answer, that of the first process; a command that cannot be shared says so."""
    (tmp_path / "noise.yaml").write_text(MANIFEST)
    for split in ("train", "val", "test"):
        for name in ("grey noise", "loud noise"):
            place = tmp_path / "noise" / split / name
            place.parent.mkdir(parents=True, exist_ok=True)
            write_pictures(place, 3, seed=hash_value([split, name]))
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    start += ["--master-port", str(free_port()), "-m", "aape"]
    words = ["encode", str(tmp_path / "noise.yaml"), "--root", str(tmp_path / "noise")]
    words += ["--encoder", "lite", "--device", "cpu", "--json"]
    done = subprocess.run([*start, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["images"], found["computed"], found["texts"]) == (18, 18, 2 * 8)
    assert found["processes"] == 2
    refused = subprocess.run([*start, "encoders"], capture_output=True, text=True, timeout=300)
    assert refused.returncode != 0
    assert "aape encoders is not for several processes" in refused.stderr

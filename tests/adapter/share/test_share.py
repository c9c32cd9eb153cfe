"""Push and pull against a small hub: what comes back is the same, and a stranger's tricks fail."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import PixelEncoder
from hub_server import SmallHub, small_hub
from random_bank import metadata, rows
from small_runs import random_photo, small_run

from aape.adapter.predict import predict
from aape.adapter.share import pull, push
from aape.adapter.share.contents import FILE
from aape.pipeline.bank import write_bank
from aape.pipeline.errors import UserError

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    # the other transfer needs a service of its own
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with small_hub() as opened:
        monkeypatch.setenv("HF_ENDPOINT", opened.address)
        monkeypatch.setenv("HF_TOKEN", opened.token)
        yield opened


def pushed_run(hub: SmallHub, home: Path) -> tuple[Path, PixelEncoder]:
    encoder = PixelEncoder()
    run = small_run(home / "run", encoder).path
    done = push(run, "me/birds")
    assert done.commit == hub.commits["models/me/birds"]
    return run, encoder


def test_a_hub_without_xet_is_told_how(
    hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hf_xet")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    run = small_run(tmp_path / "run", PixelEncoder()).path
    with pytest.raises(UserError, match="HF_HUB_DISABLE_XET=1"):
        push(run, "me/birds")


def test_a_run_comes_back_and_predicts_the_same(hub: SmallHub, tmp_path: Path) -> None:
    run, encoder = pushed_run(hub, tmp_path)
    assert "PUT /lfs" in hub.asked, "the weights went as a large file"
    done = pull("me/birds", tmp_path / "pulled")
    assert (done.kind, done.commit) == ("run", hub.commits["models/me/birds"])
    photo = random_photo(tmp_path / "a.png")
    assert (
        predict(done.place, [photo], encoder=encoder)[0].as_dict()
        == predict(run, [photo], encoder=encoder)[0].as_dict()
    )
    assert sorted(p.name for p in Path(done.place).iterdir()) == [
        "README.md", "adapter.safetensors", "adapter_config.json", "config.yaml",
    ]  # fmt: skip
    assert not list(tmp_path.glob(".aape-pull-*"))


def toy_bank(folder: Path) -> Path:
    path = folder / "toy.bank.parquet"
    write_bank(path, rows(), metadata())
    return path


def test_a_bank_comes_back(hub: SmallHub, tmp_path: Path) -> None:
    path = toy_bank(tmp_path)
    push(path, "me/toy", private=True)
    assert "datasets/me/toy" in hub.private
    done = pull("me/toy", tmp_path / "pulled")
    assert done.kind == "bank"
    assert (Path(done.place) / "toy.bank.parquet").read_bytes() == path.read_bytes()
    card = hub.repositories["datasets/me/toy"]["README.md"].decode()
    assert "data_files: toy.bank.parquet" in card
    push(path, "me/toy")  # again


def relisted(hub: SmallHub, changes: dict[str, Any], name: str = "models/me/birds") -> None:
    """Change a pushed repository as its owner could."""
    listing = json.loads(hub.repositories[name][FILE])
    for file, content in changes.items():
        if content is None:
            del listing["files"][file]
            continue
        hub.commit(name, {file: content})
        digest = hashlib.sha256(content).hexdigest()
        listing["files"][file] = {"size": len(content), "sha256": digest}
    hub.commit(name, {FILE: json.dumps(listing).encode()})


def test_a_file_that_changed_on_the_way_is_found(hub: SmallHub, tmp_path: Path) -> None:
    pushed_run(hub, tmp_path)
    content = hub.repositories["models/me/birds"]["adapter.safetensors"]
    hub.commit("models/me/birds", {"adapter.safetensors": content[:-1] + b"\x01"})
    with pytest.raises(UserError, match="checksum does not agree"):
        pull("me/birds", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize(
    "changes",
    [{"model.py": b"import os"}, {"../escaped": b"x"}, {"/tmp/escaped": b"x"},
     {"README.md": None}, {"adapter.pkl": b"x"}],
)  # fmt: skip
def test_other_files_than_a_run_has_are_refused(
    hub: SmallHub, tmp_path: Path, changes: dict[str, Any]
) -> None:
    pushed_run(hub, tmp_path)
    relisted(hub, changes)
    with pytest.raises(UserError, match="other files than a run has"):
        pull("me/birds", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_places_sizes_and_kinds_of_strangers(hub: SmallHub, tmp_path: Path) -> None:
    pushed_run(hub, tmp_path)
    files = dict(hub.repositories["models/me/birds"])
    config = files["config.yaml"].replace(b"bank: ''", b"bank: /etc/passwd", 1)
    assert config != files["config.yaml"]
    relisted(hub, {"config.yaml": config})
    with pytest.raises(UserError, match="names places"):
        pull("me/birds", tmp_path / "pulled")
    relisted(hub, {"config.yaml": b"task: !!python/object/apply:os.system [ls]\n"})
    with pytest.raises(UserError):
        pull("me/birds", tmp_path / "pulled")
    hub.commit("models/me/birds", files)
    with pytest.raises(UserError, match=r"GB; the limit"):
        pull("me/birds", tmp_path / "pulled", max_gigabytes=1e-9)
    listing = json.loads(files[FILE])
    listing["files"]["README.md"]["size"] = 3
    hub.commit("models/me/birds", {FILE: json.dumps(listing).encode()})
    with pytest.raises(UserError, match="larger than it says"):
        pull("me/birds", tmp_path / "pulled")
    hub.commit("models/me/birds", {FILE: json.dumps({**listing, "kind": "bank"}).encode()})
    with pytest.raises(UserError, match="not a run"):
        pull("me/birds", tmp_path / "pulled")
    hub.commit("models/me/birds", {FILE: b"[" * 1_000_001})
    with pytest.raises(UserError, match="larger than it says"):
        pull("me/birds", tmp_path / "pulled")


def test_a_damaged_bank_is_neither_pushed_nor_pulled(hub: SmallHub, tmp_path: Path) -> None:
    path = toy_bank(tmp_path)
    push(path, "me/toy")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    relisted(hub, {"toy.bank.parquet": bytes(content)}, "datasets/me/toy")
    with pytest.raises(UserError, match="not sound"):
        pull("me/toy", tmp_path / "pulled")
    path.write_bytes(content)
    with pytest.raises(UserError, match="not sound"):
        push(path, "me/toy")


def test_errors_are_one_sentence(
    hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="has no run and no bank"):
        pull("me/nothing", tmp_path / "pulled")
    with pytest.raises(UserError, match="is no repository"):
        pull("../../etc", tmp_path / "pulled")
    with pytest.raises(UserError, match="neither a run folder nor a bank"):
        push(tmp_path / "absent", "me/x")
    pushed_run(hub, tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").write_text("x")
    with pytest.raises(UserError, match="there already"):
        pull("me/birds", tmp_path / "used")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="does not let you"):
        push(tmp_path / "run", "me/birds")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot give or take"):
        push(tmp_path / "run", "me/birds")


_LOAD = """
import datasets
table = datasets.load_dataset("me/toy", split="train")
print(len(table), table[0]["text"], len(table[0]["embedding"]))
"""


@pytest.mark.slow
def test_a_pushed_bank_is_a_data_set(hub: SmallHub, tmp_path: Path) -> None:
    """By its name on the hub, as a stranger would: in a process that never heard of aape."""
    pytest.importorskip("datasets")
    push(toy_bank(tmp_path), "me/toy")
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", _LOAD]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    count, *text, width = done.stdout.split()
    assert (int(count), width) == (30, "8")
    assert text[0] == "text"

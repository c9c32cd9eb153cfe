"""What a hub's client raises is one sentence; a fault of a program is not taken for it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from aape.pipeline.encoders.clip_sources import _weights_in
from aape.pipeline.encoders.folders import snapshot
from aape.pipeline.encoders.transformers import _context_length
from aape.pipeline.encoders.weights import download, find_local
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.models import folder_revision, local_folder, where_is_model


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("absent"), HFValidationError("no name")])
def test_what_is_not_in_the_cache_is_one_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    with pytest.raises(UserError, match=r"not on this machine.*HF_HUB_OFFLINE is set"):
        snapshot("someone/model")


def test_a_fault_of_a_program_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise TypeError("unexpected argument")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", wrong)
    with pytest.raises(TypeError, match="unexpected argument"):
        snapshot("someone/model")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("socket.create_connection", wrong)
    with pytest.raises(TypeError, match="unexpected argument"):
        download({"url": "https://example.invalid/w.pt"}, "ViT-B-16/x")


# --- language models ---


class Hub:
    """A hub's client: what a cache holds, and what a download would add."""

    def __init__(self, folder: Path, cached: list[str], there: list[str] | Exception) -> None:
        self.folder, self.there = folder, there
        self._put(cached)

    def _put(self, files: list[str]) -> None:
        for name in files:
            (self.folder / name).write_text(INDEX if name.endswith("index.json") else "{}")

    def snapshot_download(self, *, local_files_only: bool = False, **wanted: object) -> str:
        assert (wanted["repo_id"], wanted["revision"]) == ("some/lm", "v2")
        if local_files_only:
            if not any(self.folder.iterdir()):
                raise LocalEntryNotFoundError("absent")
        elif isinstance(self.there, Exception):
            raise self.there
        else:
            self._put(self.there)
        return str(self.folder)


INDEX = json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}})
SHARDED = ["config.json", "model.safetensors.index.json", "m-1.safetensors", "m-2.safetensors"]


@pytest.mark.parametrize("cached", [["config.json", "model.safetensors"], SHARDED])
def test_a_language_model_that_is_whole_in_the_cache_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: list[str]
) -> None:
    hub = Hub(tmp_path, cached, AssertionError("the network is not asked"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    assert local_folder("some/lm", "v2") == tmp_path
    found = where_is_model("some/lm", "v2")
    assert (found.place, found.missing) == (str(tmp_path), [])


@pytest.mark.parametrize(
    ("cached", "why"),
    [
        ([], "it is not in the hub cache"),
        (["config.json", "tokenizer.json"], "only a part of it"),
        (SHARDED[:3], "only a part of it"),
        (["model.safetensors"], "only a part of it"),
    ],
)
def test_a_part_of_a_language_model_is_completed_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: list[str], why: str
) -> None:
    hub = Hub(tmp_path, cached, SHARDED)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    with pytest.raises(UserError, match=rf"'some/lm'.*{why}.* and HF_HUB_OFFLINE is set"):
        local_folder("some/lm", "v2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    (missing,) = where_is_model("some/lm", "v2").missing
    assert why in missing
    assert "OFFLINE" not in missing
    assert local_folder("some/lm", "v2") == tmp_path


def test_a_hub_without_the_weights_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    for there, said in [
        (["config.json"], "no config.json and weights as safetensors there"),
        (ConnectionError("no route\nto host"), r"no route\)"),
        (ConnectionError(), r"\(ConnectionError\)"),
    ]:
        hub = Hub(tmp_path, [], there)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
        with pytest.raises(UserError, match=said):
            local_folder("some/lm", "v2")
    hub.there = TypeError("a fault of ours")
    with pytest.raises(TypeError):
        local_folder("some/lm", "v2")


def test_folders_that_are_no_language_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a language model folder"):
        local_folder(str(tmp_path))
    assert where_is_model(str(tmp_path)).missing == [str(tmp_path / "config.json")]
    commit = tmp_path / "snapshots" / "0a1b"
    commit.mkdir(parents=True)
    assert folder_revision(commit) == "0a1b"


# --- weights that lie here ---


def test_weights_in_a_folder_are_those_of_the_name_or_the_only_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights in"):
        _weights_in(tmp_path)
    (tmp_path / "x.pt").touch()
    assert _weights_in(tmp_path).name == "x.pt"
    (tmp_path / "y.bin").touch()
    with pytest.raises(UserError, match="holds 2 files of weights"):
        _weights_in(tmp_path)
    (tmp_path / "open_clip_model.safetensors").touch()
    assert _weights_in(tmp_path).name == "open_clip_model.safetensors"


def test_published_weights_are_found_in_the_caches_of_three_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {("owner/model", "open_clip_model.safetensors"): "a", ("owner/model", "w.bin"): "b"}
    look = lambda repository, file: there.get((repository, file))  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert find_local({"hf_hub": "owner/model/"}) == Path("a")
    assert find_local({"hf_hub": "owner/model/w.bin"}) == Path("b"), "the file that is named"
    old = {"hf_hub": "other/model/", "url": "https://example.invalid/hash/ViT-B-16.pt?x=1"}
    assert find_local(old) is None
    place = tmp_path / ".cache" / "clip" / "ViT-B-16.pt"
    place.parent.mkdir(parents=True)
    place.touch()
    assert find_local(old) == place


def test_a_text_is_as_long_as_the_model_reads() -> None:
    endless = SimpleNamespace(model_max_length=10**30)
    text = SimpleNamespace(model_type="roberta", max_position_embeddings=514, pad_token_id=1)
    # RoBERTa's positions begin behind that of the padding
    assert _context_length(SimpleNamespace(text_config=text, model_type="x"), endless) == 512
    text = SimpleNamespace(model_type="bert", max_position_embeddings=300)
    assert _context_length(SimpleNamespace(text_config=text, model_type="x"), endless) == 300
    text = SimpleNamespace(model_type="t5")
    assert _context_length(SimpleNamespace(text_config=text, model_type="x"), endless) == 512
    short = SimpleNamespace(model_max_length=64)
    assert _context_length(SimpleNamespace(text_config=text, model_type="x"), short) == 64

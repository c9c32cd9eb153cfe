"""What a hub's client raises is one sentence; a fault of a program is not taken for it."""

from __future__ import annotations

import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from aape.pipeline.encoders.folders import snapshot
from aape.pipeline.encoders.weights import download
from aape.pipeline.errors import UserError


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

"""Where the weights of an open_clip model are on this machine, and how they are read safely."""

from __future__ import annotations

import os
import pickle
import socket
import struct
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from ..errors import UserError
from ..files import hash_file
from ..hub_errors import is_of_hub, is_offline
from .checkpoints import State, fill, read_tensors

_PROBE_SECONDS = 3.0


def find_local(config: dict[str, Any]) -> Path | None:
    """Return the weights of a pretrained tag if they are in a local cache; never uses the network.

    Looks where open_clip, huggingface_hub and OpenAI's ``clip`` package keep them.
    """
    from huggingface_hub import try_to_load_from_cache

    if hub := config.get("hf_hub", ""):
        repository, name = os.path.split(hub)
        named = [f"{Path(name).stem}.safetensors", name] if name else []
        for file in [*named, "open_clip_model.safetensors", "open_clip_pytorch_model.bin"]:
            found = try_to_load_from_cache(repository, file)
            if isinstance(found, str):
                return Path(found)
    if url := config.get("url", ""):
        path = Path.home() / ".cache" / "clip" / Path(urlparse(url).path).name
        if path.is_file():
            return path
    return None


def download(config: dict[str, Any], name: str) -> Path:
    """Download the weights of a pretrained tag.

    Raises:
        UserError: no hub is reachable within three seconds, or the download fails.
    """
    from open_clip.pretrained import download_pretrained

    hint = "Give a local file with --checkpoint, or use --encoder lite."
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    parts = urlparse(address if config.get("hf_hub") else config.get("url", address))
    try:
        if is_offline():
            raise OSError("HF_HUB_OFFLINE is set")
        socket.create_connection((parts.hostname or "", parts.port or 443), _PROBE_SECONDS).close()
        return Path(download_pretrained(config))
    except Exception as error:
        if not is_of_hub(error) and not isinstance(error, RuntimeError):  # a wrong checksum
            raise
        raise UserError(
            f"The weights of {name} are not on this machine and {parts.hostname} cannot be "
            f"reached ({error}).",
            hint,
        ) from error


def is_torchscript(path: Path) -> bool:
    """Say whether a file is a TorchScript archive, the form of OpenAI's original files."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, LookupError, struct.error):
        return False  # a damaged file, as its reader will say


def published_by_openai() -> frozenset[str]:
    """Return the SHA-256 of OpenAI's own files, which stand in the addresses they publish."""
    import open_clip
    from open_clip.pretrained import get_pretrained_url

    urls = [get_pretrained_url(name, "openai") for name in open_clip.list_openai_models()]
    return frozenset(url.split("/")[-2] for url in urls if "openaipublic" in url)


def _read_torchscript(path: Path) -> dict[str, torch.Tensor]:
    """Read OpenAI's own archives, and no others: a TorchScript archive is a program.

    Raises:
        UserError: the file is not, byte for byte, one that OpenAI published.
    """
    if hash_file(path) not in published_by_openai():
        raise UserError(
            f"{path} is a TorchScript archive, which is code, and not one that OpenAI published.",
            "Save its weights alone, as safetensors or with torch.save(model.state_dict(), FILE).",
        )
    state = torch.jit.load(path, map_location="cpu").state_dict()
    for extra in ("input_resolution", "context_length", "vocab_size"):
        state.pop(extra, None)
    return {key: value.float() for key, value in state.items()}


def read_state(path: Path, name: str) -> State | None:
    """Read the weights of an open_clip model; nothing for big_vision's ``.npz``, read in place.

    Reads safetensors, ``.pt``/``.bin`` and training checkpoints without running code from the
    file, and OpenAI's archives.

    Raises:
        UserError: the file cannot be read.
    """
    if path.suffix in (".npz", ".npy"):
        return None
    try:
        if is_torchscript(path):
            return _read_torchscript(path)
        return read_tensors(path)
    except UserError:
        raise
    except Exception as error:
        raise _not_weights(path, name, error) from error


def load_into(model: torch.nn.Module, state: State | None, path: Path, name: str) -> None:
    """Load what :func:`read_state` read into an open_clip model, strictly.

    Raises:
        UserError: the tensors are not those of the model.
    """
    try:
        if state is None:
            from open_clip.convert import load_big_vision_weights

            load_big_vision_weights(model, str(path))  # type: ignore[arg-type]
        else:
            fill(model, state)
    except Exception as error:
        raise _not_weights(path, name, error) from error


def _not_weights(path: Path, name: str, error: Exception) -> UserError:
    if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
        return UserError(
            f"{path} holds more than weights, and nothing but weights is read from a checkpoint.",
            "Save the weights alone: torch.save(model.state_dict(), FILE).",
        )
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"{path} does not hold the weights of {name}: {reason}.",
        "Name the architecture that the file was trained with, such as "
        "--encoder ViT-B-32-quickgelu.",
    )

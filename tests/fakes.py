"""Encoders that need no weights, and random unit vectors: shared by all tests."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from aape.pipeline.encoders.photo_transforms import Augmentation, Evaluation

_GREY = (0.5, 0.5, 0.5)


def unit(*shape: int, seed: int = 0) -> Tensor:
    """Random vectors of unit length."""
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Scale the last axis to unit length."""
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


class FakeEncoder:
    """Texts as random unit vectors that follow from the text; counts what it is asked."""

    dim, token_dim, logit_scale, context_length = 16, 3, 100.0, 77
    preprocessing, notes, precision = "none", "", "fp32"
    device = torch.device("cpu")

    def __init__(self, weights: str = "0" * 16, seconds: float = 0.0, name: str = "fake") -> None:
        """``seconds`` are slept at every call."""
        self.id = name
        self.weights_hash, self.seconds = weights, seconds
        self.texts: list[str] = []

    @property
    def fingerprint(self) -> str:
        return f"{self.id}@{self.weights_hash[:16]}"

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        time.sleep(self.seconds)
        rows = []
        for text in texts:
            digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
            seed = int.from_bytes(digest[:4], "big")
            rows.append(np.random.default_rng(seed).normal(size=self.dim))
        return unit_rows(np.array(rows, np.float32).reshape(len(rows), self.dim))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) + 2 for text in texts]

    def prompt_tower(self) -> None:
        return None


class PixelEncoder(FakeEncoder):
    """Images as a random projection of all their pixels: no two look the same."""

    dim, logit_scale, preprocessing = 8, 1.0, "v1"

    def __init__(self, weights: str = "w", seconds: float = 0.0) -> None:
        super().__init__(weights, seconds)
        self.images = 0
        self.transform = Evaluation(8, 8, _GREY, _GREY)
        self.augment = Augmentation(8, _GREY, _GREY)
        generator = torch.Generator().manual_seed(len(weights))
        self.map = torch.randn(192, self.dim, generator=generator)

    def encode_images(self, pixels: Tensor) -> Tensor:
        self.images += len(pixels)
        time.sleep(self.seconds)
        return F.normalize(pixels.flatten(1) @ self.map, dim=-1)

    def image_tokens(self, pixels: Tensor) -> Tensor:
        return pixels[:, :, ::4, ::4].flatten(2).transpose(1, 2)

    def encode_images_and_tokens(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode_images(pixels), self.image_tokens(pixels)


def _unscaled(picture: Image.Image) -> Tensor:
    values = np.asarray(picture.convert("RGB"), np.float32)
    return torch.from_numpy(values / 255).permute(2, 0, 1)


class ColourEncoder(FakeEncoder):
    """Images as a random map of their mean colour: what a caption says can be learned."""

    logit_scale = 10.0

    def __init__(self) -> None:
        super().__init__("0" * 64)
        self.transform = self.augment = _unscaled
        self.map = torch.randn(3, self.dim, generator=torch.Generator().manual_seed(0))

    def encode_images(self, pixels: Tensor) -> Tensor:
        return F.normalize((pixels.mean((2, 3)) - 0.4) @ self.map, dim=-1)

    def image_tokens(self, pixels: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(pixels, 2).flatten(2).transpose(1, 2)

    def encode_images_and_tokens(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode_images(pixels), self.image_tokens(pixels)

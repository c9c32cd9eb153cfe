"""``lite``: a small dual encoder assembled from two packages, for demos, tests and laptops.

Image side: EfficientNet-Lite0 (ImageNet). Text side: MiniLM sentence encoder. They were never
trained together; :mod:`.lite_alignment` joins them in closed form. It has no fine-grained
knowledge, and tables made with it say so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...files import cache_folder, hash_value
from ..base import (
    augmentation,
    batches,
    describe_preprocessing,
    evaluation_transform,
    fingerprint,
    hash_weights_file,
    pick_device,
)
from . import alignment as lite_alignment
from .towers import (
    CONTEXT_LENGTH,
    IMAGE_SIZE,
    IMAGE_WIDTH,
    FrozenTower,
    ImageTower,
    TextTower,
    image_weights_path,
    text_folder,
)

NOTES = (
    "lite: a small encoder for demos, tests and laptops (EfficientNet-Lite0 and MiniLM, aligned in "
    "closed form); its figures say nothing about CLIP"
)
_MEAN = (127 / 255,) * 3
_STD = (128 / 255,) * 3
_RESIZE = 256


class LiteEncoder:
    """The encoder ``lite``; see :class:`.base.Encoder` for what the methods return."""

    id = "lite"
    notes = NOTES
    dim = lite_alignment.WIDTH
    token_dim = IMAGE_WIDTH
    logit_scale = lite_alignment.LOGIT_SCALE
    logit_bias = 0.0
    context_length = CONTEXT_LENGTH
    preprocessing = describe_preprocessing(IMAGE_SIZE, _RESIZE, _MEAN, _STD)

    def __init__(self, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.transform = evaluation_transform(IMAGE_SIZE, _RESIZE, _MEAN, _STD)
        self.augment = augmentation(IMAGE_SIZE, _MEAN, _STD)
        self._images = ImageTower(self.device)
        self.precision = self._images.precision
        self._texts = TextTower(self.device)
        towers = hash_weights_file(image_weights_path()) + hash_weights_file(
            text_folder() / "model.safetensors"
        )
        self._alignment = _load_alignment(self._images, self._texts, towers).to(self.device)
        self.weights_hash = _alignment_key(towers)

    @property
    def fingerprint(self) -> str:
        """Id and weights of both towers and of the alignment."""
        return fingerprint(self.id, self.weights_hash)

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Encode one batch: (n,) texts to (n, d)."""
        return self._alignment.text(self._texts(texts)).cpu().numpy()

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode one batch: (b, 3, h, w) to (b, d)."""
        return self._alignment.image(self._images(pixels).mean((2, 3)))

    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the map before pooling as tokens: (b, 3, h, w) to (b, 49, 1280)."""
        return self._images(pixels).flatten(2).transpose(1, 2)

    def encode_images_and_tokens(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (b, d) and tokens (b, 49, 1280) in one pass."""
        maps = self._images(pixels)
        return self._alignment.image(maps.mean((2, 3))), maps.flatten(2).transpose(1, 2)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text with start and end."""
        return [len(tokens) for tokens in self._texts.tokens(texts)]

    def image_tower(self) -> torch.nn.Module:
        """Return a copy of the tower for export: scaled pixels (b, 3, h, w) to (b, d), float32."""
        return FrozenTower(self._images.model, self._alignment.image_map)

    def prompt_tower(self) -> None:
        """Return nothing: contexts are learned in CLIP's own text towers only."""


def _alignment_key(towers: str) -> str:
    """Return the hash of all that the alignment is computed from.

    The computed maps themselves are left out: their last bits differ between processors, and a
    bank made on one machine is good on another.
    """
    from open_clip import IMAGENET_CLASSNAMES

    return hash_value([towers, list(IMAGENET_CLASSNAMES), lite_alignment.VERSION])


def _load_alignment(images: ImageTower, texts: TextTower, towers: str) -> lite_alignment.Alignment:
    """Read the alignment from the cache, or fit it (seconds) and keep it with its checksum.

    A bit that flipped in the file would change every vector under the same fingerprint: what does
    not match its checksum is fitted anew.
    """
    from open_clip import IMAGENET_CLASSNAMES

    path = cache_folder("models", "lite") / f"maps-{_alignment_key(towers)[:16]}.safetensors"
    kept = lite_alignment.read(path)
    if kept is not None:
        return kept
    phrasings = []
    for phrasing in lite_alignment.PHRASINGS:
        filled = [phrasing.format(name) for name in IMAGENET_CLASSNAMES]
        rows = [texts(filled[part]) for part in batches(len(filled), 64)]
        phrasings.append(torch.cat(rows).cpu())
    alignment = lite_alignment.fit(phrasings, images.classifier)
    lite_alignment.write(path, alignment)
    return alignment

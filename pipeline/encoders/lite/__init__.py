"""``lite``: a small dual encoder assembled from two packages, for demos, tests and laptops.

Image side: EfficientNet-Lite0 (ImageNet). Text side: MiniLM sentence encoder. They were never
trained together; :mod:`.lite_alignment` joins them in closed form. It has no fine-grained
knowledge, and tables made with it say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import torch

from ...files import cache_folder, hash_value
from ..base import batches, fingerprint, hash_weights_file, pick_device
from ..photo_transforms import Augmentation, Evaluation, describe_preprocessing
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
        self.transform = Evaluation(IMAGE_SIZE, _RESIZE, _MEAN, _STD)
        self.augment = Augmentation(IMAGE_SIZE, _MEAN, _STD)
        self._images = ImageTower(self.device)
        self.precision = self._images.precision
        towers = hash_weights_file(image_weights_path()) + hash_weights_file(
            text_folder() / "model.safetensors"
        )
        alignment = _load_alignment(self._images, lambda: self._texts, towers)
        self._alignment = alignment.to(self.device)
        self.weights_hash = _alignment_key(towers)

    @cached_property
    def _texts(self) -> TextTower:
        """The text tower, opened when there is a text: a photo alone need not wait for it."""
        return TextTower(self.device)

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
    return hash_value([towers, _imagenet_names(), lite_alignment.VERSION])


def _imagenet_names() -> list[str]:
    """Return open_clip's names of ImageNet's classes; importing it all would take seconds."""
    package = find_spec("open_clip")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(next(iter(package.submodule_search_locations)), "zero_shot_metadata.py")
    spec = spec_from_file_location("aape_imagenet_names", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.IMAGENET_CLASSNAMES)


def _load_alignment(
    images: ImageTower, open_texts: Callable[[], TextTower], towers: str
) -> lite_alignment.Alignment:
    """Read the alignment from the cache, or fit it (seconds) and keep it with its checksum.

    A bit that flipped in the file would change every vector under the same fingerprint: what does
    not match its checksum is fitted anew.
    """
    path = cache_folder("models", "lite") / f"maps-{_alignment_key(towers)[:16]}.safetensors"
    kept = lite_alignment.read(path)
    if kept is not None:
        return kept
    phrasings, texts, names = [], open_texts(), _imagenet_names()
    for phrasing in lite_alignment.PHRASINGS:
        filled = [phrasing.format(name) for name in names]
        rows = [texts(filled[part]) for part in batches(len(filled), 64)]
        phrasings.append(torch.cat(rows).cpu())
    alignment = lite_alignment.fit(phrasings, images.classifier)
    lite_alignment.write(path, alignment)
    return alignment

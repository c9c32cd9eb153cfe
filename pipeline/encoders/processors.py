"""Photos to pixels by a processor of transformers, as plain callables that hold no towers.

b images, s side of the square, p patches at most, w numbers in a patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..pictures import to_rgb
from .photo_transforms import random_view

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class ProcessorTransform:
    """One photo through the processor of the model: (3, s, s), or packed patches (p, w + 3).

    A NaFlex processor keeps the shape of a photo and returns patches, which of them are there, and
    how many stand above and beside each other; packed into one tensor they can be batched.
    """

    processor: Any

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the pixels of one photo."""
        return pack(self.processor(images=to_rgb(image), return_tensors="pt"))


@dataclass(frozen=True)
class ProcessorAugmentation:
    """CoOp's random crop and flip, then the processor's own scaling of values."""

    processor: Any
    height: int
    width: int

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the pixels of one view of a photo."""
        view = random_view(image, (self.height, self.width))
        keep = {} if is_naflex(self.processor) else {"do_resize": False, "do_center_crop": False}
        return pack(self.processor(images=view, return_tensors="pt", **keep))


def is_naflex(processor: Any) -> bool:
    """Say whether a processor keeps the shape of a photo and returns patches."""
    return "spatial_shapes" in getattr(processor, "model_input_names", ())


def pack(batch: Any) -> torch.Tensor:
    """Return the pixels of one processed photo, (3, s, s) or (p, w + 3): see above."""
    pixels = batch["pixel_values"][0]
    if "spatial_shapes" not in batch:
        return pixels
    mask = batch["pixel_attention_mask"][0].to(pixels)  # (p,)
    shape = batch["spatial_shapes"][0].to(pixels)  # (2,)
    return torch.cat([pixels, mask[:, None], shape.expand(len(pixels), 2)], dim=1)


def unpack(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what the model takes, from a batch of :func:`pack`."""
    if pixels.ndim == 4:
        return {"pixel_values": pixels}
    return {
        "pixel_values": pixels[..., :-3],
        "pixel_attention_mask": pixels[..., -3].long(),
        "spatial_shapes": pixels[:, 0, -2:].long(),
    }


def view_size(processor: Any, vision: Any) -> tuple[int, int]:
    """Return height and width of an augmented view."""
    if is_naflex(processor):
        side = round(processor.max_num_patches**0.5) * processor.patch_size
        return side, side
    crops = bool(getattr(processor, "do_center_crop", False))
    size = getattr(processor, "crop_size" if crops else "size", None) or {}
    side = int(size["shortest_edge"]) if "shortest_edge" in size else vision.image_size
    return int(size.get("height", side)), int(size.get("width", side))


def describe(processor: Any) -> str:
    """Name a preprocessing so that two that differ have different names."""
    from ..files import hash_value

    settings = processor.to_dict()
    settings.pop("processor_class", None)
    name = str(settings.get("image_processor_type", type(processor).__name__))
    digest = hash_value({key: repr(value) for key, value in settings.items()})[:16]
    size = settings.get("crop_size") or settings.get("size") or settings.get("max_num_patches")
    return f"transformers {name} {size} {digest}"

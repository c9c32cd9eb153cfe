"""From a photo to the pixels of an encoder: resized, cut, scaled; and by what name.

torchvision's arithmetic, to the bit, for the case of evaluation: torchvision itself takes seconds
to import, which a single photo and each process that reads photos would wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..pictures import to_rgb

if TYPE_CHECKING:
    from PIL import Image

# CoOp's augmentation (Zhou et al. 2022, `random_resized_crop` and `random_flip`)
CROP_SCALE = (0.08, 1.0)
_VERSION = 1


@dataclass(frozen=True)
class Evaluation:
    """Resize the short side to ``resize``, cut the centre square, scale: (3, size, size), float32.

    >>> from PIL import Image
    >>> Evaluation(4, 8, (0.5,) * 3, (0.5,) * 3)(Image.new("RGB", (30, 20), "white")).shape
    torch.Size([3, 4, 4])
    """

    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the pixels of one photo."""
        from PIL.Image import Resampling

        image = to_rgb(image)
        short = min(image.size)
        if short != self.resize:
            width, height = (
                self.resize if side == short else int(self.resize * side / short)
                for side in image.size
            )
            image = image.resize((width, height), Resampling.BICUBIC)
        left, top = (round((side - self.size) / 2.0) for side in image.size)
        return _scaled(
            image.crop((left, top, left + self.size, top + self.size)), self.mean, self.std
        )


@dataclass(frozen=True)
class Augmentation:
    """Random resized crop and flip as in CoOp, by torchvision: (3, size, size), float32."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the pixels of one view of a photo."""
        return _scaled(random_view(image, (self.size, self.size)), self.mean, self.std)


def random_view(image: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """Return a random crop of a photo at a shape (height, width), flipped half of the time."""
    from torchvision import transforms as T

    crop = T.RandomResizedCrop(shape, CROP_SCALE, interpolation=T.InterpolationMode.BICUBIC)
    return T.RandomHorizontalFlip()(crop(to_rgb(image)))


def describe_preprocessing(
    size: int, resize: int, mean: Sequence[float], std: Sequence[float]
) -> str:
    """Name a preprocessing so that two that differ have different names."""
    numbers = ",".join(f"{value:.4f}" for value in (*mean, *std))
    return f"v{_VERSION} bicubic {resize} centre {size} mean,std {numbers}"


def _scaled(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    shift, scale = (torch.tensor(tuple(numbers))[:, None, None] for numbers in (mean, std))
    return pixels.sub_(shift).div_(scale)

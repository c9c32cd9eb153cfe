"""Photos are made pixels as torchvision makes them, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from aape.pipeline.encoders.photo_transforms import Augmentation, Evaluation

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.mark.parametrize(
    "shape", [(300, 200), (200, 300), (64, 64), (65, 64), (37, 123), (1, 90), (640, 481)]
)
@pytest.mark.parametrize(("size", "resize"), [(64, 64), (56, 64), (64, 73)])
def test_evaluation_is_torchvisions(shape: tuple[int, int], size: int, resize: int) -> None:
    from torchvision import transforms as T

    values = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    photo = Image.fromarray(values)
    wanted = T.Compose(
        [
            T.Resize(resize, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(size),
            T.ToTensor(), T.Normalize(MEAN, STD),
        ]
    )(photo)  # fmt: skip
    found = Evaluation(size, resize, MEAN, STD)(photo)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


def test_a_view_is_scaled_alike_and_random() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    torch.manual_seed(0)
    views = [Augmentation(16, MEAN, STD)(photo) for _ in range(3)]
    assert views[0].shape == (3, 16, 16)
    assert not torch.equal(views[0], views[1])
    white = Image.new("RGB", (9, 9), "white")
    assert torch.equal(Augmentation(4, MEAN, STD)(white), Evaluation(4, 4, MEAN, STD)(white))

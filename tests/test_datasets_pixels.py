"""Transparent pictures, of which `stamps` is full, are seen on white."""

from __future__ import annotations

import pytest
from PIL import Image

from aape.pipeline.encoders.base import to_rgb


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_hidden_colours_stay_hidden(mode: str) -> None:
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (255, 255, 255, 255) if mode == "LA" else (250, 0, 0, 255))
    if mode == "P":
        picture = picture.quantize(4)
    elif mode != "RGBA":
        picture = picture.convert(mode)
    seen = to_rgb(picture)
    assert seen.mode == "RGB"
    assert seen.getpixel((0, 0)) == (255, 255, 255)
    if mode == "RGBA":
        assert seen.getpixel((1, 0)) == (250, 0, 0)


def test_an_opaque_picture_is_left_as_it_is() -> None:
    picture = Image.new("RGB", (2, 2), (1, 2, 3))
    assert to_rgb(picture) is picture
    assert to_rgb(Image.new("L", (2, 2), 7)).getpixel((0, 0)) == (7, 7, 7)

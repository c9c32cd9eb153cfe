"""Drawn pictures for a rehearsal: tiny JPEGs that differ by class, of as few contents as wanted."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw

_SIDE = 48


class Pictures:
    """Writes pictures; contents repeat from class to class, so that a slow encoder has few.

    A cache of features knows photos by their content: 50 contents cost what 50 photos cost,
    however many files there are. Copies never differ in split: train, val and test have their own.
    """

    def __init__(self, contents: int = 0) -> None:
        """``contents`` in each split and copy; 0 draws every class differently."""
        self.contents = contents
        self.written = 0

    def write(self, path: Path, label: int, part: str, copy: int = 0) -> None:
        """Draw a picture of a class for a split."""
        path.parent.mkdir(parents=True, exist_ok=True)
        number = label % self.contents if self.contents else label
        path.write_bytes(_jpeg(number, part, copy))
        self.written += 1


@lru_cache(maxsize=20_000)
def _jpeg(number: int, part: str, copy: int) -> bytes:
    """A coloured shape on a ground: colour and shape by the class, place by split and copy."""
    hue = (number * 47) % 256
    ground = Image.new("HSV", (_SIDE, _SIDE), ((hue + 90) % 256, 70, 200 - (number // 256) * 30))
    picture = ground.convert("RGB")
    shift = ("train", "val", "test").index(part) * 5 + copy * 2
    box = [4 + shift, 6 + (number % 7), 26 + shift, 30 + (number % 5)]
    fill = Image.new("HSV", (1, 1), (hue, 230, 240)).convert("RGB").getpixel((0, 0))
    draw = ImageDraw.Draw(picture)
    (draw.ellipse, draw.rectangle, draw.pieslice)[number % 3](
        box, fill=fill, **({"start": 20, "end": 300} if number % 3 == 2 else {})
    )
    draw.line([0, number % _SIDE, _SIDE, (number * 3) % _SIDE], fill=(0, 0, 0), width=2)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80)
    return stream.getvalue()

"""A small picture as sixels, for terminals that draw no PNG.

Format: VT330/VT340 programmer reference, volume 2, chapter 14 (https://vt100.net/docs/vt3xx-gp/chapter14.html).
Written here since the libraries that encode sixels want a C library (libsixel) or ask the terminal
when they are imported (textual-image).
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

_BAND = 6  # rows of pixels in one row of characters
_COLOURS = 255  # terminals have 256 registers
_BITS = 1 << np.arange(_BAND)


def sixels(image: Image.Image) -> str:
    """Return the control sequence that draws an RGB picture at one screen pixel a pixel.

    >>> from PIL import Image
    >>> sixels(Image.new("RGB", (9, 2), "red"))
    '\\x1bP0;1q"1;1;9;2#0;2;100;0;0#0!9B-\\x1b\\\\'
    """
    flat = image.quantize(_COLOURS)
    pixels = np.asarray(flat)
    height, width = pixels.shape
    palette = np.asarray(flat.getpalette("RGB"), dtype=float).reshape(-1, 3)
    parts = [f'\x1bP0;1q"1;1;{width};{height}']
    for colour in np.unique(pixels):
        red, green, blue = np.rint(palette[colour] / 255 * 100).astype(int)
        parts.append(f"#{colour};2;{red};{green};{blue}")
    for top in range(0, height, _BAND):
        band = pixels[top : top + _BAND]
        rows = [_row(band, colour) for colour in np.unique(band)]
        parts.append("$".join(rows) + "-")
    return "".join(parts) + "\x1b\\"


def _row(band: np.ndarray, colour: int) -> str:
    """Return one colour of a band (up to 6, w): a character a column, repeats counted."""
    columns = (band == colour).T @ _BITS[: len(band)] + 63
    runs = ((chr(value), len(list(same))) for value, same in groupby(columns.tolist()))
    return f"#{colour}" + "".join(f"!{n}{c}" if n > 3 else c * n for c, n in runs)

"""Opening photos of strangers: known raster formats only, and no picture of absurd size.

Pillow knows formats that start other programs (EPS runs Ghostscript) whatever a file's name says.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError
from .files import require_regular

if TYPE_CHECKING:
    from PIL import Image

# AVIF is left out of what is tried where Pillow was built without it.
RASTER_FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF",
)  # fmt: skip
# Pillow's own limit for a decompression bomb: 2 GiB / 4 / 3, twice what it warns of.
MAX_PIXELS = 178_956_970
# The short side is resized to the tower's; at 1 x 60,000 the long one would become 13 million.
MAX_RATIO = 100


def open_raster(path: str | Path) -> Image.Image:
    """Open a picture without decoding it; use it in a ``with`` block.

    Raises:
        OSError: it cannot be read, is a pipe or a device, is no picture of :data:`RASTER_FORMATS`,
            has more than :data:`MAX_PIXELS`, or is longer than :data:`MAX_RATIO` times its width.
        ValueError, SyntaxError: the picture is damaged.
    """
    from PIL import Image

    path = Path(path)
    try:
        require_regular(path)
    except UserError as error:
        raise OSError("it is a pipe or a device, not a file") from error
    Image.init()
    known = [name for name in RASTER_FORMATS if name in Image.OPEN]
    try:
        picture = Image.open(path, formats=known)
    except Image.DecompressionBombError as error:
        raise OSError(f"it has more than {MAX_PIXELS:,} pixels") from error
    width, height = picture.size
    problem = ""
    if width * height > MAX_PIXELS:
        problem = f"it has more than {MAX_PIXELS:,} pixels ({width:,} x {height:,})"
    elif max(width, height) > MAX_RATIO * min(width, height):
        problem = f"its sides, {width:,} x {height:,}, differ by more than {MAX_RATIO} times"
    if problem:
        picture.close()
        raise OSError(problem)
    return picture

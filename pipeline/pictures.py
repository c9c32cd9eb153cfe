"""How a photo becomes what an encoder sees: upright, RGB, 8 bits, by one rule for all formats.

1. The first frame of an animation, the first page of a TIFF.
2. Upright by its EXIF orientation, all eight of them; Pillow's TIFF and HEIF readers turn theirs.
3. 8 bits: 16-bit values are divided by 257, 12-bit ones by 4095 / 255. Integers of 32 bits are
   taken as 8 or 16 bits, whichever holds them all; floats as 0 to 1 (highlights up to 2 are cut),
   0 to 255 or 0 to 65,535. A photo whose values fit none of these is refused: none is stretched by
   its own extremes.
4. What is transparent is white, and so is a pixel without a number (NaN).
5. CMYK, YCbCr, LAB, palettes and greys become RGB by Pillow's formulas; a colour profile is not
   applied, as none was when CLIP was trained.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UserError
from .raster import ends_as_it_should, needs_extra, open_raster

if TYPE_CHECKING:
    from PIL import Image

READING_VERSION = 2  # of the rule above: another one gives other pixels and so other features
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_BELOW = 1e-3  # of the largest value: resampling overshoots


class PictureError(Exception):
    """Why a photo cannot be read: half a sentence that follows its name and a colon."""


@dataclass(frozen=True)
class Unreadable:
    """A photo that is left out, and why. ``absent``: there is no such file."""

    path: Path
    reason: str
    absent: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Picture:
    """An RGB picture of 8 bits, and what had to be decided to get there, if worth saying."""

    image: Image.Image
    remark: str = ""


def read_picture(path: str | Path, *, quick: bool = False) -> Picture:
    """Read a file by the rule of this module.

    Args:
        quick: decode a JPEG at an eighth of its size, which is enough to find damage.

    Raises:
        PictureError: it is absent, empty, no regular file, cut short, of another format, or too
            large. Any error of a decoder is one of these: a file of a stranger never ends a job.
    """
    with _any_error_as_reason(Path(path)), open_raster(path) as opened:
        remark = _first_of_several(opened)
        if quick:
            opened.draft("RGB", (1, 1))
        opened.load()
        return Picture(to_rgb(opened), remark)


def glance_at(path: str | Path) -> str:
    """Look at the header and the end of a file; return the remark of :class:`Picture`.

    It costs a quarter of decoding a small JPEG, and a hundredth of a phone's. A file that is cut
    short is found as well as an empty one: only what does not end as its format ends is decoded,
    and so is every format whose ends are not known here. Damage inside is not found.

    Raises:
        PictureError: as :func:`read_picture`.
    """
    path = Path(path)
    with _any_error_as_reason(path), open_raster(path) as opened:
        if ends_as_it_should(path, opened.format or ""):
            return _first_of_several(opened)
    return read_picture(path, quick=True).remark


@contextmanager
def _any_error_as_reason(path: Path) -> Iterator[None]:
    """Check that there is something to read; say of whatever a decoder raises why it did."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PictureError("no regular file")
        if not status.st_size:
            raise PictureError("the file is empty")
        yield
    except PictureError:
        raise
    except Exception as error:  # Pillow's decoders raise anything from KeyError to struct.error
        raise PictureError(_reason(error, path)) from error


def unreadable(path: Path, error: PictureError) -> Unreadable:
    """Return the record of a photo that is left out."""
    return Unreadable(path, str(error), isinstance(error.__cause__, FileNotFoundError))


def _first_of_several(opened: Image.Image) -> str:
    """Say that there are more frames or pages; MPO's further pictures are previews."""
    if opened.format == "MPO" or not getattr(opened, "is_animated", False):
        return ""
    if opened.format == "TIFF":
        return "of several pages: the first is used"
    return "animated: the first frame is used"


def _reason(error: Exception, path: Path) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    if isinstance(error, UnidentifiedImageError):
        return needs_extra(path) or "no picture in a format that is read"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if isinstance(error, UserError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [""])[0].strip(" .") or type(error).__name__


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an open picture to upright RGB of 8 bits; one that is so already is returned as is.

    It is done before any resizing: a palette cannot be interpolated, and transparent pixels would
    show the colour that is hidden under them, mostly black.

    Raises:
        PictureError: its values are of no known range.
    """
    image.load()
    most = _largest_value(image)
    image = _upright(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_wide(image, most)
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not spoil the picture
        return image
    if orientation not in range(2, 9):
        return image
    return ImageOps.exif_transpose(image)


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode == "La":
        image = image.convert("LA")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    white.alpha_composite(layer)
    return white.convert("RGB")


def _largest_value(image: Image.Image) -> float | None:
    """Return what is white in a picture of wide integers, where its format says so."""
    if image.format in ("PNG", "PPM"):  # mode I of older Pillows; both are scaled to 16 bits
        return 65535.0
    if not image.mode.startswith("I;16"):
        return None
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
    return 4095.0 if bits in (12, (12,)) else 65535.0


def _from_wide(image: Image.Image, most: float | None) -> Image.Image:
    from PIL import Image

    values = np.asarray(image)
    grey = eight_bits(values, None if image.mode == "F" else most)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey = np.where(values == clear, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def eight_bits(values: np.ndarray, most: float | None = None) -> np.ndarray:
    """Scale values of any number type to uint8 by rule 3; the shape is kept.

    Args:
        most: the value that is white; by default what the type and the range say.

    Raises:
        PictureError: the values are of no known range.

    >>> eight_bits(np.array([0, 257, 65535], dtype=np.uint16)).tolist()
    [0, 1, 255]
    >>> eight_bits(np.array([0.0, 0.5, 1.0, np.nan])).tolist()
    [0, 128, 255, 255]
    """
    if values.dtype == np.uint8 and most is None:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint16 and most is None:
        most = 65535.0
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        raise PictureError("none of its values is a number")
    if most is None:
        most = _white(float(finite.min()), float(finite.max()), values.dtype.kind == "f")
    numbers = np.nan_to_num(numbers, nan=most, posinf=most, neginf=0.0)
    return np.floor(numbers.clip(0, most) * (255 / most) + 0.5).astype(np.uint8)


def _white(low: float, high: float, floats: bool) -> float:
    """Return the value that is white, by the range that holds all values."""
    if low >= (-_BELOW * high if floats else 0):
        if floats and high <= 2:
            return 1.0
        for most in (255.0, 65535.0):
            if high <= most:
                return most
    known = f"0 to {'1, 255' if floats else '255'} or 65,535"
    raise PictureError(f"its values run from {low:g} to {high:g}, not within {known}")


def as_picture(given: Any) -> Image.Image:
    """Return an RGB picture from one of Pillow's, or from an array (h, w), (h, w, 1, 3 or 4).

    Raises:
        PictureError: it is neither, or of another shape.
    """
    from PIL import Image

    if isinstance(given, Image.Image):
        return to_rgb(given)
    array = np.asarray(given)
    if array.dtype.kind not in "buif":
        raise PictureError(f"{type(given).__name__} is neither a picture nor an array of numbers")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or 0 in array.shape or array.shape[2:] not in ((), (3,), (4,)):
        raise PictureError(f"an array is (h, w), (h, w, 3) or (h, w, 4), not {array.shape}")
    return to_rgb(Image.fromarray(np.ascontiguousarray(eight_bits(array))))

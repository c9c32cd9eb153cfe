"""Opening photos of strangers: known raster formats only, and no picture of absurd size.

Pillow knows formats that start other programs (EPS runs Ghostscript) whatever a file's name says.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .files import require_regular

if TYPE_CHECKING:
    from PIL import Image

# Each with the suffixes its files have. What this Pillow was built without is not tried: AVIF
# before 11.3, HEIF without the extra `heic`.
RASTER_FORMATS = {
    "JPEG": ".jpg .jpeg .jpe .jfif",
    "MPO": ".mpo",
    "PNG": ".png .apng",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "DIB": ".dib",
    "TIFF": ".tif .tiff",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "JPEG2000": ".jp2 .j2k .j2c .jpc .jpf .jpx",
    "AVIF": ".avif .avifs",
    "HEIF": ".heic .heif .hif",
}
# Pictures and films that a camera or a designer makes and that are not read.
_OTHER_PICTURES = (
    ".arw .cr2 .cr3 .dng .nef .nrw .orf .pef .raf .raw .rw2 .srw "
    ".ai .eps .ico .jxl .pdf .psd .svg .tga .xcf .avi .m4v .mov .mp4"
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
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
    try:
        picture = Image.open(path, formats=readable_formats())
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


def ends_as_it_should(path: Path, format_name: str) -> bool:
    """Say whether a JPEG, PNG or WebP ends with its last bytes; False where that is not known.

    JPEG: the end marker, which cannot occur within the data, before any padding. PNG: the chunk
    IEND. WebP: as many bytes as its header says, not all zeros at the end, as a download leaves
    them that reserved its space.
    """
    with path.open("rb") as stream:
        stated = int.from_bytes(stream.read(8)[4:], "little") + 8
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 64))
        tail = stream.read()
    if format_name == "WEBP":
        return size >= stated and any(tail)
    if format_name in ("JPEG", "MPO"):
        return tail.rstrip(b"\0\r\n ").endswith(b"\xff\xd9")
    return format_name == "PNG" and tail.endswith(b"IEND\xaeB`\x82")


@cache
def readable_formats() -> tuple[str, ...]:
    """Return those of :data:`RASTER_FORMATS` that can be decoded here."""
    from PIL import Image, features

    Image.init()
    if util.find_spec("pillow_heif"):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    built = {"AVIF": "avif", "WEBP": "webp", "JPEG2000": "jpg_2000"}
    return tuple(
        name
        for name in RASTER_FORMATS
        if name in Image.OPEN and (name not in built or _is_built(features, built[name]))
    )


def _is_built(features: Any, name: str) -> bool:
    return name in features.modules | features.codecs and bool(features.check(name))


@cache
def readable_suffixes() -> frozenset[str]:
    """Return the lower-case suffixes of the files that are taken for photos."""
    return frozenset(s for name in readable_formats() for s in RASTER_FORMATS[name].split())


def why_unread(suffix: str) -> str:
    """Say why pictures of a suffix are not read; an empty string if none would have it.

    >>> why_unread(".svg"), why_unread(".txt")
    ('a format that is not read', '')
    """
    for name, suffixes in RASTER_FORMATS.items():
        if suffix in suffixes.split() and name not in readable_formats():
            return _advice(name)
    return "a format that is not read" if suffix in _OTHER_PICTURES.split() else ""


def _advice(name: str) -> str:
    extra = "install it with: pip install 'aape[heic]'"
    return f"HEIC needs pillow-heif; {extra}" if name == "HEIF" else f"this Pillow lacks {name}"


def needs_extra(path: Path) -> str:
    """Say what reading the file would need if it is HEIC or AVIF by its first bytes."""
    with path.open("rb") as stream:
        head = stream.read(12)
    if head[4:8] != b"ftyp":
        return ""
    name = "HEIF" if head[8:] in _HEIF_BRANDS else "AVIF" if head[8:] == b"avif" else ""
    return _advice(name) if name and name not in readable_formats() else ""

"""Images kept as bytes in tables and archives: written to the cache once, named by content."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import UserError
from ...files import atomic_path
from ...paths import inside
from ..records import IMAGE_SUFFIXES

# A photo of 256 MiB is no photo; what is larger is not written to the disk for a stranger.
MAX_BYTES = 1 << 28
_STARTS = {
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


def image_of_cell(value: Any, folder: Path, file: Path) -> Path | None:
    """Return where the image of a cell lies, writing it first if it is kept as bytes.

    Args:
        value: bytes, a path, or the struct of both that Hugging Face writes.
        folder: where bytes are written.
        file: the table.

    Raises:
        UserError: it is neither, or a path that leads to no image.
    """
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, (bytes, bytearray, memoryview)) and content:
        return write_image(bytes(content), folder)
    name = value.get("path") if isinstance(value, dict) else value
    if not name:
        return None
    if not isinstance(name, str) or PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(f"{file} has an image with neither bytes nor a file: {str(name)[:80]!r}.")
    path = inside(file.parent, name)
    if not path.is_file():
        raise UserError(f"{file} has an image with neither bytes nor a file: {name!r}.")
    return path


def write_image(content: bytes, folder: Path) -> Path:
    """Write an image unless it is there; its name is the hash of its content.

    Raises:
        UserError: it is too large to be a photo.
    """
    if len(content) > MAX_BYTES:
        raise UserError(f"An image of {len(content):,} bytes is too large to be a photo.")
    path = folder / f"{hashlib.sha256(content).hexdigest()[:20]}{suffix_of(content)}"
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return path


def suffix_of(content: bytes) -> str:
    """Return the file suffix of an image by its first bytes.

    >>> suffix_of(b"\\x89PNG...")
    '.png'
    """
    for start, suffix in _STARTS.items():
        if content.startswith(start):
            return suffix
    if content[4:12] in (b"ftypavif", b"ftypavis"):
        return ".avif"
    return ".webp" if content[8:12] == b"WEBP" else ".img"

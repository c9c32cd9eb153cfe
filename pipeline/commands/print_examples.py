"""A few photos of a data set: drawn where the terminal can draw, named by their paths elsewhere.

Two protocols: kitty's (https://sw.kovidgoyal.net/kitty/graphics-protocol/), which Ghostty knows
too, and iTerm2's inline images (https://iterm2.com/documentation-images.html), which WezTerm
knows. A terminal is known by what it puts into the environment: none is asked, so that nothing is
printed where there is no answer. Nothing is drawn into a pipe or a file.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TextIO

from ..datasets.dataset import open_dataset
from ..datasets.manifest import Manifest
from ..errors import UserError

N_EXAMPLES = 4
_PIXELS = 160
_CHUNK = 4096  # what one escape of kitty's protocol may hold

Protocol = Literal["kitty", "iterm", ""]


def protocol_of(environment: Mapping[str, str], *, is_terminal: bool) -> Protocol:
    """Return how a terminal shows pictures; empty if it does not, or if it is none.

    >>> protocol_of({"TERM": "xterm-kitty"}, is_terminal=True)
    'kitty'
    >>> protocol_of({"TERM": "xterm-kitty"}, is_terminal=False)
    ''
    """
    multiplexed = "TMUX" in environment or environment.get("TERM", "").startswith("screen")
    if not is_terminal or multiplexed:
        return ""
    program = environment.get("TERM_PROGRAM", "")
    if environment.get("TERM") in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    return "iterm" if program in ("iTerm.app", "WezTerm") else ""


def example_paths(manifest: Manifest, number: int = N_EXAMPLES) -> list[tuple[str, Path]]:
    """Return photos of the training split, of different classes, each with its class or caption."""
    try:
        contents = open_dataset(manifest).contents
    except UserError:
        return []  # its files are not here, which `show` has said
    found: dict[object, tuple[str, Path]] = {}
    for split in ("train", "val", "test"):
        for item in contents.items.get(split, []):
            found.setdefault(item.label, (manifest.class_names[item.label], item.path))
        for image in contents.captions.get(split, []) if not found else []:
            if len(found) < number:
                found[image.image_id] = (image.captions[0], image.path)
        if found:
            break
    return list(found.values())[:number]


def print_examples(manifest: Manifest, stream: TextIO | None = None) -> None:
    """Print a few photos with what they show: drawn on a terminal that can, else by path."""
    stream = sys.stdout if stream is None else stream
    protocol = protocol_of(os.environ, is_terminal=stream.isatty())
    for text, path in example_paths(manifest):
        printable = "".join(c for c in f"  example: {text}: {path}" if c.isprintable())
        stream.write(f"{printable}\n")
        picture = _small_png(path) if protocol else b""
        if picture:
            stream.write(escape(picture, protocol) + "\n")


def _small_png(path: Path) -> bytes:
    """Return a photo as a small PNG, or nothing if it cannot be read."""
    from PIL import Image

    from ..raster import open_raster

    try:
        with open_raster(path) as image:
            small = image.convert("RGB")
            small.thumbnail((_PIXELS, _PIXELS))
    except (OSError, ValueError, SyntaxError, UserError, Image.DecompressionBombError):
        return b""
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()


def escape(png: bytes, protocol: Protocol) -> str:
    """Return the control sequence that draws a PNG.

    >>> escape(b"x", "kitty")
    '\\x1b_Ga=T,f=100,q=2,m=0;eA==\\x1b\\\\'
    """
    data = base64.b64encode(png).decode("ascii")
    if protocol == "iterm":
        return f"\x1b]1337;File=inline=1;size={len(png)}:{data}\a"
    chunks = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]
    parts = []
    for number, chunk in enumerate(chunks):
        keys = "a=T,f=100,q=2," if number == 0 else ""
        more = int(number < len(chunks) - 1)
        parts.append(f"\x1b_G{keys}m={more};{chunk}\x1b\\")
    return "".join(parts)

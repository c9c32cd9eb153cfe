"""A few photos of a data set: drawn where the terminal can draw, named by their paths elsewhere.

Three protocols: kitty's (https://sw.kovidgoyal.net/kitty/graphics-protocol/), which Ghostty knows
too, iTerm2's inline images (https://iterm2.com/documentation-images.html), which WezTerm knows,
and sixels: foot, mlterm, mintty, Konsole from 22.04 and Windows Terminal from 1.22, earlier ones
of which swallow them. A terminal is known by what it puts into the environment: none is asked, so
that nothing is printed where there is no answer. Where a name says too little (xterm, contour),
AAPE_PICTURES says it. Nothing is drawn into a pipe or a file.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from ..datasets.dataset import open_dataset
from ..datasets.manifest import Manifest
from ..errors import UserError
from ..pictures import PictureError, read_picture
from .sixel import sixels

if TYPE_CHECKING:
    from PIL import Image

N_EXAMPLES = 4
_PIXELS = 160
_CHUNK = 4096  # what one escape of kitty's protocol may hold

Protocol = Literal["kitty", "iterm", "sixel", ""]
_KONSOLE_WITH_SIXELS = 220400


def protocol_of(environment: Mapping[str, str], *, is_terminal: bool) -> Protocol:
    """Return how a terminal shows pictures; empty if it does not, or if it is none.

    >>> protocol_of({"TERM": "xterm-kitty"}, is_terminal=True)
    'kitty'
    >>> protocol_of({"TERM": "xterm-kitty"}, is_terminal=False)
    ''
    """
    wanted = environment.get("AAPE_PICTURES", "").lower()
    if not is_terminal or wanted == "none":
        return ""
    for protocol in ("kitty", "iterm", "sixel"):
        if wanted == protocol:
            return protocol
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux")):
        return ""
    if term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm"):
        return "iterm"
    return "sixel" if _draws_sixels(term, program, environment) else ""


def _draws_sixels(term: str, program: str, environment: Mapping[str, str]) -> bool:
    konsole = environment.get("KONSOLE_VERSION", "")
    return (
        term.startswith(("foot", "mlterm"))
        or program == "mintty"
        or "WT_SESSION" in environment
        or (konsole.isdecimal() and int(konsole) >= _KONSOLE_WITH_SIXELS)
    )


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
    out: Any = sys.stdout if stream is None else stream
    protocol = protocol_of(os.environ, is_terminal=out.isatty())
    for text, path in example_paths(manifest):
        printable = "".join(c for c in f"  example: {text}: {path}" if c.isprintable())
        out.write(f"{printable}\n")
        picture = _small(path) if protocol else None
        if picture is not None:
            out.write(
                (sixels(picture) if protocol == "sixel" else escape(_png(picture), protocol)) + "\n"
            )


def _small(path: Path) -> Image.Image | None:
    """Return a photo as an encoder sees it, but small; None if it cannot be read."""
    try:
        small = read_picture(path).image.copy()
    except PictureError:
        return None
    small.thumbnail((_PIXELS, _PIXELS))
    return small


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
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

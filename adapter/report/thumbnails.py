"""Small pictures for the report, and of whose photos they may be.

A table may come from a stranger, and a page goes to others: a path in it must not bring a private
picture into the page. Only photos below the data set's own folder are shown.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from ...pipeline.errors import UserError
from ...pipeline.paths import is_plain_name

_SIDE = 144  # pixels on the longer side, twice the printed size of small images


def data_folders(dataset: str, root: str | Path | None = None) -> list[Path]:
    """Return the folders whose photos may be shown for a data set.

    Args:
        dataset: its name, which a table says and is therefore not trusted with a path.
        root: a folder that the user names; without it, where the data set lies on this machine.
    """
    if root:
        return [Path(root).resolve()]
    if not is_plain_name(dataset):
        return []
    from ...pipeline.datasets import load_manifest
    from ...pipeline.datasets.dataset import candidate_roots

    try:
        found = candidate_roots(load_manifest(dataset))
    except UserError:
        return []
    return [folder.resolve() for folder in found if folder.is_dir()]


def thumbnail(image: object, folders: Sequence[Path]) -> str:
    """Return a small JPEG or PNG as a data URI; an empty string where nothing may be shown."""
    if not isinstance(image, str | Path) or not str(image) or "\0" in str(image):
        return ""
    try:  # links are followed first: what counts is where the photo really lies
        path = Path(image).resolve(strict=True)
    except (OSError, RuntimeError):
        return ""
    if not any(path.is_relative_to(folder) for folder in folders):
        return ""
    return small_picture(path)


def small_picture(path: Path) -> str:
    """Return a photo as a small data URI; an empty string where it is no raster picture."""
    from PIL import Image

    from ...pipeline.pictures import PictureError, read_picture

    try:
        small = read_picture(path).image
    except PictureError:
        return ""
    drawn = max(small.size) < _SIDE  # small pictures are drawings: edges stay sharp
    if drawn:
        factor = _SIDE / max(small.size)
        size = (max(1, round(small.width * factor)), max(1, round(small.height * factor)))
        small = small.resize(size, Image.Resampling.NEAREST)
    small.thumbnail((_SIDE, _SIDE))
    out = io.BytesIO()
    kind = "png" if drawn else "jpeg"
    small.save(out, format=kind.upper(), optimize=True, **({} if drawn else {"quality": 82}))
    return f"data:image/{kind};base64," + base64.b64encode(out.getvalue()).decode("ascii")

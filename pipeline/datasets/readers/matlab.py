"""Reader of labels in MATLAB files: Flowers102 and Stanford Cars as they were released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import UserError
from ...paths import inside
from ..manifest import Manifest
from ..records import Contents, Item, Split
from .labels import with_validation
from .layouts import MatlabLabels


def read_matlab(root: Path, layout: MatlabLabels, manifest: Manifest) -> Contents:
    """Read the published split; labels count from 1 in CoOp's order. For cars, val is made here."""
    base = root / layout.folder
    if layout.style == "flowers":
        return Contents(_flowers(base))
    return with_validation(root, _cars(base))


def _flowers(base: Path) -> dict[Split, list[Item]]:
    labels = _load(base / "imagelabels.mat", "labels")
    parts: dict[Split, str] = {"train": "trnid", "val": "valid", "test": "tstid"}
    return {
        split: [
            Item(base / "jpg" / f"image_{int(i):05d}.jpg", int(labels[i - 1]) - 1)
            for i in _load(base / "setid.mat", part)
        ]
        for split, part in parts.items()
    }


def _cars(base: Path) -> dict[Split, list[Item]]:
    files: dict[Split, tuple[str, str]] = {
        "train": ("devkit/cars_train_annos.mat", "cars_train"),
        "test": ("cars_test_annos_withlabels.mat", "cars_test"),
    }
    items: dict[Split, list[Item]] = {}
    for split, (file, folder) in files.items():
        rows = _load(base / file, "annotations")
        items[split] = [
            Item(inside(base / folder, str(row["fname"].item())), int(row["class"].item()) - 1)
            for row in rows
        ]
    return items


def _load(path: Path, name: str) -> Any:
    """Return one variable of a MATLAB file, flat."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise UserError(
            f"Reading {path.name} needs the package 'scipy', which is not installed.",
            "Install it with: pip install scipy.",
        ) from error
    try:
        return loadmat(str(path))[name].ravel()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except (MatReadError, KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"{path} is not a MATLAB file that can be read: {error}.") from error

"""Reader of labels in MATLAB files: Flowers102 and Stanford Cars as they were released."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
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
    try:
        items = _flowers(base) if layout.style == "flowers" else _cars(base)
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"The MATLAB files in {base} do not hold the labels they should."
        ) from error
    labels = {item.label for some in items.values() for item in some}
    if labels and not 0 <= min(labels) <= max(labels) < len(manifest.classes):
        raise UserError(f"The MATLAB files in {base} have classes that {manifest.name!r} lacks.")
    return Contents(items) if layout.style == "flowers" else with_validation(root, items)


def _flowers(base: Path) -> dict[Split, list[Item]]:
    labels = _load(base / "imagelabels.mat", ["labels"])["labels"]
    parts: dict[Split, str] = {"train": "trnid", "val": "valid", "test": "tstid"}
    numbers = _load(base / "setid.mat", list(parts.values()))
    if any(i < 1 for some in numbers.values() for i in some):
        raise IndexError
    return {
        split: [Item(base / "jpg" / f"image_{i:05d}.jpg", labels[i - 1] - 1) for i in numbers[part]]
        for split, part in parts.items()
    }


def _cars(base: Path) -> dict[Split, list[Item]]:
    files: dict[Split, tuple[str, str]] = {
        "train": ("devkit/cars_train_annos.mat", "cars_train"),
        "test": ("cars_test_annos_withlabels.mat", "cars_test"),
    }
    items: dict[Split, list[Item]] = {}
    for split, (file, folder) in files.items():
        rows = _load(base / file, ["annotations"])["annotations"]
        items[split] = [Item(inside(base / folder, name), label - 1) for name, label in rows]
    return items


# SciPy's parser crashes with the whole process on some damaged files: a child may crash instead
_CHILD = """
import json, sys
from scipy.io import loadmat
content = loadmat(sys.argv[1])
found = {}
for name in sys.argv[2:]:
    values = content[name].ravel()
    if values.dtype.names:
        found[name] = [[str(v["fname"].item()), int(v["class"].item())] for v in values]
    else:
        found[name] = [int(v) for v in values]
print(json.dumps(found))
"""
_SECONDS = 300


def _load(path: Path, names: list[str]) -> dict[str, Any]:
    """Return variables of a MATLAB file: numbers, or pairs of file name and class."""
    if find_spec("scipy") is None:
        raise UserError(
            f"Reading {path.name} needs the package 'scipy', which is not installed.",
            "Install it with: pip install scipy.",
        )
    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    command = [sys.executable, "-I", "-c", _CHILD, str(path.resolve()), *names]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True)
        return json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        output = getattr(error, "stderr", None) or b""
        reason = output.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        raise UserError(
            f"{path} is not a MATLAB file that can be read: {reason or 'it is damaged'}."
        ) from error

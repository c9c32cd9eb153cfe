"""What a feature file may say: every tensor and every word of a stranger's file is checked once.

n images, c classes, k prompts of a class, d embedding width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...pipeline.errors import UserError
from ..arrays import all_finite

_PROMPTS = "prompt_text.features"


def read_features(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read all tensors and the metadata of a safetensors file, and check their shapes and types.

    Raises:
        UserError: the file is absent or of another format, a tensor has a wrong shape or values
            that are not finite, or labels are no whole numbers.
    """
    from ...pipeline.store import read_tensors

    try:
        tensors, metadata = read_tensors(path, "np")
    except TypeError as error:  # numpy has no bfloat16 and no 8-bit floats
        raise UserError(
            f"{path} holds a type of number that is not read: {error}.", "Save it as float16."
        ) from error
    for name, tensor in tensors.items():
        _check_tensor(path, name, tensor)
    for name in tensors:
        if name.endswith(".labels") and f"{name.removesuffix('.labels')}.features" in tensors:
            n = len(tensors[f"{name.removesuffix('.labels')}.features"])
            if tensors[name].size != n:
                raise UserError(f"{path}: {name} has {tensors[name].size} labels for {n} images.")
    return tensors, metadata


def _check_tensor(path: Path, name: str, tensor: np.ndarray) -> None:
    if name.endswith(".features"):
        axes = 3 if name == _PROMPTS else 2
        if tensor.ndim != axes or not np.issubdtype(tensor.dtype, np.floating):
            shape = "(c, k, d)" if axes == 3 else "(n, d)"
            raise UserError(
                f"{path}: {name} has shape {tensor.shape} of {tensor.dtype}; {shape} of floating"
                " point numbers is wanted."
            )
        if not all_finite(tensor):
            raise UserError(f"{path}: {name} has values that are not finite.")
    elif name.endswith(".labels"):
        numbers = np.issubdtype(tensor.dtype, np.number)
        if not numbers or not np.isfinite(tensor).all() or (tensor != np.floor(tensor)).any():
            raise UserError(f"{path}: {name} are not whole numbers from 0 on.")


def class_names(path: Path, metadata: Mapping[str, str], count: int) -> list[str]:
    """Return the names of the classes; numbers where the file has none.

    Raises:
        UserError: they are no JSON list of ``count`` texts.
    """
    names = _json(path, metadata, "classnames")
    if names is None or names == []:
        return [f"class {i}" for i in range(count)]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: classnames is not a JSON list of texts.")
    if len(names) != count and count > 1:  # one class is said where it matters
        raise UserError(f"{path} has {len(names)} class names for {count} class texts.")
    return names


def class_ids(
    path: Path, metadata: Mapping[str, str], name: str, default: list[int], count: int
) -> list[int]:
    """Return ``base_ids`` or ``new_ids`` as the file has them, else the default.

    Raises:
        UserError: they are no JSON list of different class ids.
    """
    ids = _json(path, metadata, name)
    if ids is None or ids == []:
        return default
    whole = isinstance(ids, list) and all(type(i) is int and 0 <= i < count for i in ids)
    if not whole or len(set(ids)) != len(ids):
        raise UserError(
            f"{path}: {name} is not a JSON list of different class ids from 0 to {count - 1}."
        )
    return ids


def positive(path: Path, metadata: Mapping[str, str], name: str, default: float) -> float:
    """Return a number above 0 of the metadata, else the default.

    Raises:
        UserError: it is no such number.
    """
    text = metadata.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{path} gives {text!r} as {name}; a number above 0 is wanted.")
    return value


def _json(path: Path, metadata: Mapping[str, str], name: str) -> Any:
    text = metadata.get(name)
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {name} in its metadata is not valid JSON.") from error

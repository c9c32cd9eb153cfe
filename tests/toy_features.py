"""A feature file of six classes whose texts are roughly right: shared by all tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from fakes import unit_rows
from safetensors.numpy import save_file

C, D = 6, 16


def feature_file(path: Path, drop: tuple[str, ...] = (), header: dict[str, str] | None = None,
                 **changed: Any) -> Path:  # fmt: skip
    """Write a feature file of clusters whose texts are roughly right."""
    generator = np.random.default_rng(0)
    centres = unit_rows(generator.normal(size=(C, D)))

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.tile(np.arange(C), count).astype(np.int32)
        return unit_rows(centres[y] + 0.25 * generator.normal(size=(len(y), D))), y

    tensors: dict[str, np.ndarray] = {}
    for name, count in (("train", 10), ("val", 4), ("test", 20)):
        tensors[f"{name}.features"], tensors[f"{name}.labels"] = images(count)
    texts = unit_rows(centres + 0.2 * generator.normal(size=(C, D)))
    tensors["class_text.features"] = texts
    tensors["waffle_text.features"] = unit_rows(texts + 0.1 * generator.normal(size=(C, D)))
    tensors["prompt_text.features"] = unit_rows(
        texts[:, None] + 0.1 * generator.normal(size=(C, 4, D))
    )
    tensors |= changed
    tensors = {name: tensor for name, tensor in tensors.items() if name not in drop}
    metadata = {
        "encoder": "toy tower",
        "classnames": json.dumps([f"thing {i}" for i in range(C)]),
        "logit_scale": "20",
        "dataset": "things",
    } | (header or {})
    save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, path, metadata=metadata)
    return path

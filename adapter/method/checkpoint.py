"""Training state in one file of the store: modules, moments of the optimiser, and a little JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...pipeline.store import finished, read_tensors, write_tensors

_OPTIMISER = "optimizer"


def save_checkpoint(
    path: Path,
    modules: Mapping[str, torch.nn.Module],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write everything that training needs to go on, whole or not at all."""
    tensors = {
        f"{part}.{name}": value
        for part, module in modules.items()
        for name, value in module.state_dict().items()
    }
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            if value is not None:  # a moment that the optimiser does not keep
                tensors[f"{_OPTIMISER}.{index}.{slot}"] = torch.as_tensor(value)
    write_tensors(path, tensors, {"state": json.dumps(state)})


def load_checkpoint(
    path: Path,
    modules: Mapping[str, torch.nn.Module],
    optimizer: torch.optim.Optimizer,
    key: str = "",
) -> dict[str, Any] | None:
    """Restore what :func:`save_checkpoint` wrote and return its state.

    Returns:
        Nothing where training starts over: the file is absent or damaged, an earlier version wrote
        it, or the ``key`` in its state is another one.
    """
    found = finished(path)
    if found is None:
        return None
    tensors, notes = found
    state = json.loads(notes.get("state", "null"))
    if not isinstance(state, dict) or state.get("key", "") != key:
        return None
    parts: dict[str, dict[str, torch.Tensor]] = {part: {} for part in (*modules, _OPTIMISER)}
    for name, value in tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = value
    for part, module in modules.items():
        module.load_state_dict(parts[part])
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in parts[_OPTIMISER].items():
        index, slot = name.split(".")
        slots.setdefault(int(index), {})[slot] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    return state


def read_module(path: Path, part: str = "module") -> dict[str, torch.Tensor]:
    """Return the weights of one module of a training state that is finished.

    Raises:
        UserError: the file is absent or damaged.
    """
    tensors, _ = read_tensors(path)
    first = f"{part}."
    return {n.removeprefix(first): value for n, value in tensors.items() if n.startswith(first)}

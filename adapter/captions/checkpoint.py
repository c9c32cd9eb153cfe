"""Training state in one safetensors file: module, AdamW moments, step, and a little JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ...pipeline.store import finished, write_tensors


def save_checkpoint(
    path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write everything that training needs to go on, whole or not at all."""
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            tensors[f"optimizer.{index}.{slot}"] = torch.as_tensor(value)
    write_tensors(path, tensors, {"state": json.dumps(state)})


def load_checkpoint(
    path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore what :func:`save_checkpoint` wrote and return its state; None where it is absent or
    damaged, and training starts over."""
    found = finished(path)
    if found is None:
        return None
    tensors, notes = found
    state = json.loads(notes["state"])
    module.load_state_dict(
        {
            name.removeprefix("module."): value
            for name, value in tensors.items()
            if name.startswith("module.")
        }
    )
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".")
            slots.setdefault(int(index), {})[slot] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    return state

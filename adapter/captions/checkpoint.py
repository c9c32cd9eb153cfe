"""Training state in one safetensors file: module, AdamW moments, step, and a little JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ...pipeline.files import atomic_path


def save_checkpoint(
    path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write everything that training needs to go on, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            tensors[f"optimizer.{index}.{slot}"] = torch.as_tensor(value)
    flat = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(flat, temporary, metadata={"state": json.dumps(state)})


def load_checkpoint(
    path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore what :func:`save_checkpoint` wrote and return its state; None without a file."""
    from safetensors import safe_open

    if not path.exists():
        return None
    with safe_open(path, framework="pt") as stored:
        state = json.loads(stored.metadata()["state"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
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

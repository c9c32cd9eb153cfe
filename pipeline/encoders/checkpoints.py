"""Checkpoints as people have them: bare weights, or what a training loop wrote around them.

Nothing in a checkpoint is run. ``torch.load`` reads weights only, and besides tensors it meets
numpy's numbers (the learning rate of a schedule) and an argparse namespace, which hold data alone.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

State = dict[str, torch.Tensor]

# where training loops put the weights: open_clip and Lightning; many scripts; DeiT and its heirs
_INSIDE = ("state_dict", "model_state_dict", "model", "module")
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel, torch.compile
# Long-CLIP keeps the first 20 positions and stretches the rest (Zhang et al. 2024, section 3.1)
_LONG_KEPT = 20
_LONG = "positional_embedding_res"


def read_tensors(path: Path) -> State:
    """Read the weights of a model out of a file, under the names the model itself gives them.

    Raises:
        ValueError: there are no weights in it, or those of several models.
        OSError, RuntimeError, pickle.UnpicklingError: it cannot be read as weights only.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return tidy(load_file(path))
    with torch.serialization.safe_globals(_harmless()):
        return tidy(torch.load(path, map_location="cpu", weights_only=True))


def tidy(checkpoint: Any) -> State:
    """Return the weights inside a checkpoint, without the prefixes of what was wrapped around them.

    >>> tidy({"epoch": 1, "state_dict": {"module.visual.proj": torch.zeros(1)}})
    {'visual.proj': tensor([0.])}

    Raises:
        ValueError: there are none, or those of several models.
    """
    for _ in range(3):
        if not isinstance(checkpoint, Mapping):
            raise ValueError("it holds no weights by name")
        inside = [checkpoint[name] for name in _INSIDE if isinstance(checkpoint.get(name), Mapping)]
        if not inside:
            break
        checkpoint = inside[0]
    state = {str(k): v for k, v in checkpoint.items() if isinstance(v, torch.Tensor)}
    if not state:
        raise ValueError("it holds no weights by name")
    return _without_prefix(state)


def text_positions(state: State) -> int:
    """Return how many text positions the weights of an open_clip model have; 0 where unknown."""
    for name in ("positional_embedding", "text.positional_embedding"):
        if name in state and state[name].ndim == 2:
            return len(state[name])
    return 0


def is_long(state: State) -> bool:
    """Say whether these weights are laid out as Long-CLIP's own, whose towers are OpenAI's."""
    return _LONG in state and state.get("positional_embedding", torch.zeros(0)).ndim == 2


def join_long_positions(state: State) -> State:
    """Join Long-CLIP's two tables of positions, of which each is read in one part only."""
    if not is_long(state):
        return state
    state = dict(state)
    kept, stretched = state["positional_embedding"], state.pop(_LONG)
    state["positional_embedding"] = torch.cat([kept[:_LONG_KEPT], stretched[_LONG_KEPT:]])
    return state


def _without_prefix(state: State) -> State:
    roots = {found.group(1) for key in state if (found := re.match(r"(.*?)\bvisual\.", key))}
    if "" in roots:
        return state
    if len(roots) > 1:
        raise ValueError(f"it holds several models: {', '.join(sorted(roots))}")
    if roots:  # a loss or another model beside it is left behind
        root = roots.pop()
        return {key.removeprefix(root): state[key] for key in state if key.startswith(root)}
    while wrapper := next((w for w in _WRAPPERS if all(key.startswith(w) for key in state)), ""):
        state = {key.removeprefix(wrapper): value for key, value in state.items()}
    return state


def _harmless() -> list[Any]:
    """Return what may stand in a checkpoint besides tensors, under the names of numpy 1 and 2."""
    scalar: Any = np.float64(0).__reduce__()[0]
    numbers = [getattr(np.dtypes, f"{name}DType") for name in ("Float64", "Float32", "Int64")]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [*((scalar, name) for name in names), np.dtype, *numbers, argparse.Namespace]


def fill(model: torch.nn.Module, state: State) -> None:
    """Load weights into an open_clip model, strictly, with open_clip's own conversions.

    The same steps as ``open_clip.load_checkpoint``, which takes a path only.

    Raises:
        RuntimeError, KeyError, AssertionError: they are the weights of another architecture.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import (
        convert_to_custom_text_state_dict,
        resize_pos_embed,
        resize_text_pos_embed,
    )

    state = dict(convert_state_dict(model, state))  # type: ignore[arg-type]
    for extra in ("input_resolution", "context_length", "vocab_size"):  # of OpenAI's archives
        state.pop(extra, None)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    own = model.state_dict()
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in own:
            state[name] = state[name].reshape(own[name].shape)
    if "logit_bias" in own and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(state["logit_scale"])
    stale = "text.transformer.embeddings.position_ids"
    if stale not in own:
        state.pop(stale, None)
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    model.load_state_dict(state)

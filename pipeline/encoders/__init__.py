"""Frozen dual encoders: any open_clip model, and the small ``lite``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .known import DEFAULT, EncoderInfo, list_encoders

if TYPE_CHECKING:
    from .base import Encoder

__all__ = ["DEFAULT", "EncoderInfo", "list_encoders", "load_encoder"]


def load_encoder(
    name: str = "auto", checkpoint: str = "", device: str = "auto", precision: str = "auto"
) -> Encoder:
    """Load an encoder by name.

    Args:
        name: ``lite``; ``MODEL/TAG`` of open_clip, such as ``ViT-B-16-quickgelu/openai``; or
            ``auto``: the environment variable ``AAPE_ENCODER`` if set, else OpenAI's ViT-B/16 if
            its weights are on this machine, else ``lite``. ``auto`` never uses the network.
        checkpoint: a local file of weights for an open_clip model; then ``MODEL`` alone will do,
            and ``auto`` means ViT-B/16 with QuickGELU.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …
        precision: of an open_clip model: ``auto``, ``float32`` or ``bfloat16``.

    Raises:
        UserError: the name is unknown, or its weights are not here.
    """
    if name == "auto":
        name = _automatic(checkpoint)
    if name == "lite" and not checkpoint:
        from .lite import LiteEncoder

        return LiteEncoder(device)
    from .clip import ClipEncoder

    return ClipEncoder(name, checkpoint, device, precision)


def _automatic(checkpoint: str) -> str:
    from open_clip.pretrained import get_pretrained_cfg

    from ..progress import step
    from .weights import find_local

    if chosen := os.environ.get("AAPE_ENCODER", ""):
        step(f"Encoder: {chosen} (from AAPE_ENCODER).")
        return chosen
    model, tag = DEFAULT.split("/")
    if checkpoint:
        return model
    if find_local(get_pretrained_cfg(model, tag)) is not None:
        step(f"Encoder: {DEFAULT} (its weights are on this machine).")
        return DEFAULT
    step(f"Encoder: lite, since the weights of {DEFAULT} are not on this machine.")
    return "lite"

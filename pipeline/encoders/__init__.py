"""Frozen dual encoders: open_clip's models, those of transformers, and the small ``lite``."""

from __future__ import annotations

import os
from pathlib import Path
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
        name: ``lite``; ``MODEL/TAG`` of open_clip, such as ``ViT-B-16-quickgelu/openai``;
            ``hf-hub:ORG/NAME`` or ``local-dir:FOLDER`` as open_clip has them; ``transformers:`` and
            a folder or ``ORG/NAME``; a folder alone; or
            ``auto``: the environment variable ``AAPE_ENCODER`` if set, else OpenAI's ViT-B/16 if
            its weights are on this machine, else ``lite``. ``auto`` never uses the network.
        checkpoint: a local file of weights for an open_clip model; then ``MODEL`` alone will do,
            and ``auto`` means ViT-B/16 with QuickGELU. Or the folder of a whole model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …
        precision: of all but ``lite``: ``auto``, ``float32`` or ``bfloat16``.

    Raises:
        UserError: the name is unknown, or its weights are not here.
    """
    if name == "auto":
        name = choose_automatically(checkpoint)
    if name == "lite" and not checkpoint:
        from .lite import LiteEncoder

        return LiteEncoder(device)
    from .clip import ClipEncoder
    from .clip_sources import find_clip_folder
    from .folders import find_folder, has_scheme

    if has_scheme(name) or _is_folder(name) or _is_folder(checkpoint):
        found = find_folder(name, checkpoint)
        if found.library == "open_clip":
            source = find_clip_folder(found.path, found.id)
            return ClipEncoder.from_source(source, device, precision)
        from .transformers import TransformersEncoder

        return TransformersEncoder(found.path, found.id, device, precision)
    return ClipEncoder(name, checkpoint, device, precision)


def _is_folder(name: str) -> bool:
    """Say whether a name is that of a folder; a name that open_clip knows stays its own."""
    import open_clip

    known = name.partition("/")[0] in open_clip.list_models()
    return bool(name) and not known and Path(name).expanduser().is_dir()


def choose_automatically(checkpoint: str) -> str:
    """Return the encoder that ``auto`` stands for here, and say which on standard error."""
    from open_clip.pretrained import get_pretrained_cfg

    from ..progress import step
    from .weights import find_local

    if chosen := os.environ.get("AAPE_ENCODER", ""):
        step(f"Encoder: {chosen} (from AAPE_ENCODER).")
        return chosen
    model, tag = DEFAULT.split("/")
    if checkpoint:
        return checkpoint if _is_folder(checkpoint) else model
    if find_local(get_pretrained_cfg(model, tag)) is not None:
        step(f"Encoder: {DEFAULT} (its weights are on this machine).")
        return DEFAULT
    step(f"Encoder: lite, since the weights of {DEFAULT} are not on this machine.")
    return "lite"

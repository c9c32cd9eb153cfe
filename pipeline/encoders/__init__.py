"""Frozen dual encoders: any open_clip model, and the small ``lite``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from .base import Encoder

__all__ = ["load_encoder"]


def load_encoder(name: str = "auto", checkpoint: str = "", device: str = "auto") -> Encoder:
    """Load an encoder by name.

    Args:
        name: ``lite``; ``MODEL/TAG`` of open_clip, such as ``ViT-B-16-quickgelu/openai``; or
            ``auto``.
        checkpoint: a local file of weights for an open_clip model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …

    Raises:
        UserError: the name is unknown, or its weights are not here.
    """
    if name in ("auto", "lite") and not checkpoint:
        from .lite import LiteEncoder

        return LiteEncoder(device)
    raise UserError(f"Unknown encoder {name!r}.", "Known: lite.")

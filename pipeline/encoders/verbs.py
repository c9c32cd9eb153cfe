"""The verb ``encoders`` as a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .known import EncoderInfo


def encoders(everything: bool = False) -> list[EncoderInfo]:
    """List the encoders, whether their weights are on this machine, and their licence.

    Args:
        everything: all models of open_clip.
    """
    from .known import list_encoders

    return list_encoders(everything)

"""A run for other programs: ONNX, ``torch.export``, or a folder in the manner of peft."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...pipeline.errors import UserError, unknown_name

if TYPE_CHECKING:
    from ...pipeline.encoders.base import Encoder

__all__ = ["Format", "export"]
Format = Literal["onnx", "torch", "folder"]
FORMATS = ("onnx", "torch", "folder")


def export(
    run: str | Path,
    out: str | Path,
    *,
    format: Format = "onnx",
    photo: bool = False,
    encoder: Encoder | None = None,
    checkpoint: str = "",
) -> Path:
    """Write a run's adapter for other programs, its terms folded into as few steps as they allow.

    Args:
        run: a run of classification. out: the file, or the folder.
        format: ``onnx``: image features (b, d), unit length, to logits (b, c) of all classes of
            the run. ``torch``: the same as a ``.pt2`` of ``torch.export``. ``folder``:
            ``adapter_config.json``, ``adapter.safetensors`` and a model card, in the manner of
            peft.
        photo: whole photos instead of features: pixels (b, 3, h, w) from 0 to 1, cut and scaled as
            the file says, to logits. Not for ``folder``.
        encoder: an open encoder instead of the run's; needed for ``photo``, and where class texts
            were not kept.
        checkpoint: local weights of the encoder, where the run was made with such.

    Returns:
        What was written.

    Raises:
        UserError: the run has no adapter of classification, or what is needed is not installed.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if format == "folder":
        if photo:
            raise UserError("A folder holds the adapter alone.", "Leave out --photo.")
        from .folder import write_folder

        return write_folder(run, out)
    from .graph import write_onnx, write_torch
    from .open_classes import open_folded

    module, facts = open_folded(run, photo=photo, encoder=encoder, checkpoint=checkpoint)
    write = write_onnx if format == "onnx" else write_torch
    return write(module, facts, Path(out))

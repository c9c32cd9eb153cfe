"""A module to a file that other programs run: ONNX, or ``torch.export``."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...pipeline.errors import UserError, missing_extra
from ...pipeline.files import atomic_path

_OPSET = 18


def example(facts: dict[str, Any]) -> Tensor:
    """Return an input of the right shape: (2, d), or (2, 3, h, w)."""
    if "crop" in facts:
        return torch.zeros(2, 3, facts["crop"], facts["crop"])
    return torch.nn.functional.normalize(torch.ones(2, facts["width"]), dim=-1)


def write_onnx(module: nn.Module, facts: dict[str, Any], out: Path) -> Path:
    """Write one ONNX file; ``facts`` stand in its metadata under ``aape``, as JSON.

    Raises:
        UserError: the packages are not installed, or ``out`` cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        try:
            __import__(package)
        except ImportError as error:
            raise missing_extra(package, "onnx", "aape export") from error
    import onnx

    _require_suffix(out, ".onnx")
    name = "pixels" if "crop" in facts else "features"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example(facts),),
            dynamo=True,
            input_names=[name],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=_OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {"aape": json.dumps(facts, ensure_ascii=False)})
    with atomic_path(out) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return out


def write_torch(module: nn.Module, facts: dict[str, Any], out: Path) -> Path:
    """Write a program of ``torch.export``; ``facts`` lie in it as the extra file ``aape.json``.

    Raises:
        UserError: ``out`` cannot be written.
    """
    _require_suffix(out, ".pt2")
    with torch.no_grad():
        program = torch.export.export(
            module, (example(facts),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    extra = {"aape.json": json.dumps(facts, ensure_ascii=False)}
    with atomic_path(out) as temporary, temporary.open("wb") as stream:
        torch.export.save(program, stream, extra_files=extra)
    return out


def _require_suffix(out: Path, suffix: str) -> None:
    if out.suffix != suffix:
        raise UserError(f"{out} should end with {suffix}.", f"Name it {out.with_suffix(suffix)}.")

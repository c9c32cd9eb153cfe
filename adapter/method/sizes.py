"""What a kept adapter must be to be believed: it may come from a stranger.

c classes of a data set, s trained ones, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from ...pipeline.config import Section, Share

# far above any that training finds, and far below where 32 bits end
_MOST = 1e12
Weight = Annotated[float, Field(ge=-_MOST, le=_MOST)]
# axes of each tensor by its name; what is not named here its own term checks
_AXES = {
    "text": "sd", "class_texts": "cd", "delta": "sd",
    "discriminant.weight": "sd", "discriminant.bias": "s", "own.weight": "ds", "own.bias": "s",
    "shared.matrix": "dd", "shared.shift": "d", "shared.mean_text": "d",
    "query.matrix": "dd", "query.mean_image": "d", "query.mean_text": "d",
}  # fmt: skip


class KeptClassText(Section):
    """What stands for a class."""

    base: Literal["template", "ensemble"] = Field(
        default="template", description="the first template, or the mean of all"
    )
    share: Share = Field(default=0.0, description="of the descriptions")


class KeptTrust(Section):
    """Weights of the terms as they were named before version 0.2."""

    model_config = ConfigDict(extra="ignore")
    head: Share = Field(description="of the head, for new classes")
    query: Share = Field(description="of the query, for all classes")


class KeptAdapter(Section):
    """The numbers of ``adapter_config.json``; what else the file says is for other readers."""

    model_config = ConfigDict(extra="ignore")
    scale: float = Field(gt=0, le=_MOST, description="factor of cosines")
    classes: int | None = Field(default=None, ge=1, description="trained classes")
    dim: int | None = Field(default=None, ge=1, description="width of the features")
    class_text: KeptClassText | None = Field(default=None, description="what stands for a class")
    table: dict[str, tuple[Weight, Weight]] | None = Field(
        default=None, min_length=1, description="weights of a term: for a seen class, for a new one"
    )
    alpha: Weight = Field(default=0.0, description="weight of the Gaussian term, before 0.2")
    trust: KeptTrust | None = Field(default=None, description="weights of the terms, before 0.2")


def check_sizes(tensors: Mapping[str, Tensor], classes: int | None = None) -> tuple[int, int]:
    """Compare the sizes of tensors with those of the trained texts (s, d); return s and d.

    Args:
        classes: c, where it is known.

    Raises:
        ValueError: a size does not fit, or a value is not finite.

    >>> check_sizes({"text": torch.ones(3, 8), "delta": torch.ones(3, 8)})
    (3, 8)
    >>> check_sizes({"text": torch.ones(3, 8), "delta": torch.ones(1, 8)})
    Traceback (most recent call last):
        ...
    ValueError: delta has the size (1, 8), not (3, 8)
    """
    text = tensors["text"]
    if text.ndim != 2 or not text.numel():
        raise ValueError(f"text has the size {tuple(text.shape)}")
    sizes: dict[str, Any] = {"s": len(text), "d": text.shape[1], "c": classes}
    for name, axes in _AXES.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        there = tuple(tensor.shape)
        wanted = tuple(sizes[axis] for axis in axes)
        fits = len(there) == len(wanted) and all(b in (None, a) for a, b in zip(there, wanted))
        if not fits:
            told = str(wanted).replace("None", "classes")
            raise ValueError(f"{name} has the size {there}, not {told}")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise ValueError(f"{name} has values that are not finite")
    return sizes["s"], sizes["d"]

"""A small few-shot problem without names or files, for tests of the method."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aape.adapter.method.problem import ClassSet, FewShot

C, D = 6, 12


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def problem(shots: int = 6, noise: float = 0.7, classes: int = C, wrong: float = 0.8) -> FewShot:
    """Images about centres, texts near the centres, descriptions nearer."""
    centres = unit(classes, D, seed=0)
    y = torch.arange(classes).repeat(shots)
    x = F.normalize(centres[y] + noise * unit(len(y), D, seed=2), dim=-1)
    template = F.normalize(centres + wrong * unit(classes, D, seed=1), dim=-1)
    prompts = F.normalize(centres[:, None] + wrong * unit(classes, 4, D, seed=3), dim=-1)
    mask = torch.ones(classes, 4, dtype=torch.bool)
    described = F.normalize(prompts.mean(1), dim=-1)
    texts = ClassSet(template, template, described, None, torch.arange(classes))
    return FewShot(x, y, None, texts, prompts, mask, x[:0], y[:0], 20.0, shots)

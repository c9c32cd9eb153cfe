"""A small world of photos and class texts that are somewhat wrong, for tests."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def world(
    counts: list[int], seed: int = 0, error: float = 0.12, d: int = 32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return photos (n, d), labels (n,) and class texts (c, d) that are wrong by ``error``."""
    generator = torch.Generator().manual_seed(seed)
    c = len(counts)
    means = F.normalize(torch.randn(c, d, generator=torch.Generator().manual_seed(99)), dim=-1)
    y = torch.arange(c).repeat_interleave(torch.tensor(counts))
    x = F.normalize(means[y] + 0.09 * torch.randn(len(y), d, generator=generator), dim=-1)
    wrong = torch.randn(c, d, generator=torch.Generator().manual_seed(7))
    common = F.normalize(torch.ones(d), dim=0)
    t = F.normalize(0.25 * means + error * wrong / d**0.5 * 4 + common, dim=-1)
    return x, y, t

"""The loop that trained baselines share. n images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...pipeline.errors import UserError


def minimise(
    parameters: Sequence[Tensor],
    loss: Callable[[Tensor], Tensor],
    n: int,
    *,
    optimiser: torch.optim.Optimizer,
    epochs: int,
    batch_size: int,
    seed: int,
) -> None:
    """Minimise ``loss(rows)`` over batches of n images with a cosine learning rate, in place.

    Args:
        parameters: leaves to train; those that need no gradient get one here.
        loss: of the images with these row numbers.
        n: number of images. optimiser: over ``parameters``; its rate is the peak.
        epochs: passes over the images. batch_size: images a step. seed: of the order.

    Raises:
        UserError: the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    total, step = epochs * math.ceil(n / batch_size), 0
    peaks = [group["lr"] for group in optimiser.param_groups]
    device = parameters[0].device
    for epoch in range(epochs):
        for rows in torch.randperm(n, generator=generator).to(device).split(batch_size):
            for group, peak in zip(optimiser.param_groups, peaks):
                group["lr"] = peak * 0.5 * (1 + math.cos(math.pi * step / total))
            value = loss(rows)
            if not math.isfinite(value.item()):
                raise UserError(f"The loss is not finite in epoch {epoch + 1}.")
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            step += 1


def leaf(start: Tensor) -> Tensor:
    """Return a trainable copy."""
    return start.detach().clone().requires_grad_()

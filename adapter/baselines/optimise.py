"""The loop that trained baselines share. n images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...pipeline.errors import UserError


def by_step(epoch: int, epochs: int, step: int, steps: int) -> float:
    """Return the share of the peak rate: a cosine over all steps."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def minimise(
    parameters: Sequence[Tensor],
    loss: Callable[[Tensor], Tensor],
    n: int,
    *,
    optimiser: torch.optim.Optimizer,
    epochs: int,
    batch_size: int,
    seed: int,
    rate: Callable[[int, int, int, int], float] = by_step,
    whole_batches: bool = False,
    after_epoch: Callable[[int], None] | None = None,
) -> None:
    """Minimise ``loss(rows)`` over batches of n images, in place.

    Args:
        parameters: leaves to train; those that need no gradient get one here.
        loss: of the images with these row numbers.
        n: number of images. optimiser: over ``parameters``; its rate is the peak.
        epochs: passes over the images. batch_size: images a step. seed: of the order.
        rate: the share of the peak rate by (epoch, epochs, step, steps), both from 0.
        whole_batches: leave the last batch out where it is smaller than the others.
        after_epoch: called with the number of finished epochs.

    Raises:
        UserError: the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    used = n - n % batch_size if whole_batches and n >= batch_size else n
    steps, step = epochs * math.ceil(used / batch_size), 0
    peaks = [group["lr"] for group in optimiser.param_groups]
    device = parameters[0].device
    for epoch in range(epochs):
        order = torch.randperm(n, generator=generator)[:used].to(device)
        values = []
        for rows in order.split(batch_size):
            for group, peak in zip(optimiser.param_groups, peaks):
                group["lr"] = peak * rate(epoch, epochs, step, steps)
            value = loss(rows)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            values.append(value.detach())
            step += 1
        # asked once an epoch: to ask makes the host wait for the device
        if not bool(torch.stack(values).isfinite().all()):
            raise UserError(f"The loss is not finite in epoch {epoch + 1}.")
        if after_epoch is not None:
            after_epoch(epoch + 1)


def leaf(start: Tensor) -> Tensor:
    """Return a trainable copy."""
    return start.detach().clone().requires_grad_()

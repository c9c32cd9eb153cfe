"""A training step recorded once on an Nvidia GPU and replayed for every further batch.

A step of the method is a hundred small kernels. The host needs milliseconds to ask for them, the
device less to run them. A CUDA graph asks once. Shapes and addresses must then stay, so all batches
of a record have one size, and what differs between them is copied to one place before each replay.

b images in a batch, l losses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .model import keeps_all_activations
from .problem import FewShot
from .recipe import Recipe

_WARM_STEPS = 3  # real ones, in which libraries open and the optimiser makes its moments


def can_record(data: FewShot, recipe: Recipe) -> bool:
    """Return whether steps of this training can be recorded.

    They cannot where activations are computed twice to save memory, and a random choice of prompts
    is another one for an image than for a class.
    """
    return (
        data.x.device.type == "cuda"
        and recipe.aggregator.kind != "random"
        and len(data.x) >= recipe.batch_size
        and keeps_all_activations(recipe.batch_size, len(data.w), recipe.rank)
    )


class RecordedStep:
    """The step ``descend(losses(batch))``: run a few times, then recorded, then replayed.

    Args:
        losses: from a batch, an integer tensor (m, b) on the device.
        descend: backward and the optimiser's step; returns the losses (l,).
        size: b of the batches that are replayed; others are run kernel by kernel.
    """

    def __init__(
        self,
        losses: Callable[[Tensor], dict[str, Tensor]],
        descend: Callable[[dict[str, Tensor]], Tensor],
        size: int,
    ) -> None:
        self._losses, self._descend, self._size = losses, descend, size
        self._warm = 0
        self._stream: torch.cuda.Stream | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch = self._found = torch.empty(0)

    def __call__(self, batch: Tensor) -> Tensor:
        """Take one step and return its losses (l,)."""
        if batch.shape[-1] != self._size or self._warm < _WARM_STEPS:
            self._warm += batch.shape[-1] == self._size
            return self._on_the_side(lambda: self._descend(self._losses(batch)))
        if self._graph is None:
            self._record(batch)
        self._batch.copy_(batch)
        assert self._graph is not None
        self._graph.replay()
        return self._found.clone()

    def _on_the_side(self, work: Callable[[], Tensor]) -> Tensor:
        """Run on the stream of the record: the leaves of a gradient keep the stream they met."""
        if self._stream is None:
            self._stream = torch.cuda.Stream()
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            found = work()
        here.wait_stream(self._stream)
        return found

    def _record(self, batch: Tensor) -> None:
        """Record one step; nothing is computed by that."""
        self._batch = batch.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._found = self._descend(self._losses(self._batch))
        self._graph = graph

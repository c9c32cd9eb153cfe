"""Requests that come at the same time share a pass through the encoder.

One thread owns the model; photos are decoded in others. A request that finds the queue full is
refused at once, which is kinder than an answer after everybody has left.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class QueueFull(Exception):
    """More requests wait than the server takes."""


class Batcher(Generic[Item, Result]):
    """Collects items for a moment and hands them to ``work`` together, in the model's thread.

    Args:
        work: items to results, in order. size: most items at once.
        wait: seconds that the first of a batch waits for others. waiting: most items in the queue.
        model_thread: where ``work`` runs; one thread. seen: told the size of each batch.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        size: int,
        wait: float,
        waiting: int,
        model_thread: ThreadPoolExecutor,
        seen: Callable[[int], Any] = lambda size: None,
    ) -> None:
        self.work, self.size, self.wait = work, size, wait
        self.model_thread, self.seen = model_thread, seen
        self.waiting = waiting
        self._queue: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue(waiting)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start collecting, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop collecting; who waits is told so."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        while not self._queue.empty():
            self._queue.get_nowait()[1].cancel()

    async def __call__(self, item: Item) -> Result:
        """Return the result of one item.

        Raises:
            QueueFull: too many wait already.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((item, future))
        except asyncio.QueueFull as error:
            raise QueueFull from error
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            end = loop.time() + self.wait
            while len(batch) < self.size:
                left = end - loop.time()
                try:
                    batch.append(
                        self._queue.get_nowait()
                        if left <= 0
                        else await asyncio.wait_for(self._queue.get(), left)
                    )
                except (asyncio.QueueEmpty, asyncio.TimeoutError):
                    break
            # whoever gave up while waiting costs nothing more
            batch = [(item, future) for item, future in batch if not future.done()]
            if not batch:
                continue
            self.seen(len(batch))
            try:
                items = [item for item, _ in batch]
                results = await loop.run_in_executor(self.model_thread, self.work, items)
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)
            except asyncio.CancelledError:
                for _, future in batch:
                    future.cancel()
                raise
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

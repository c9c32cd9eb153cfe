"""Processes that work as one: those that ``torchrun`` started, each with its number (rank).

All of them run the same command. What is decided once is decided by the first and shared, what can
be divided is divided, and the first alone prints and writes tables. They talk through Gloo, since
what they exchange is small and lies in main memory, whatever device they compute on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import UserError
from .progress import hushed

if TYPE_CHECKING:
    import torch

# one may have to wait while another encodes for hours; the end of one is noticed at once anyway
_PATIENCE = timedelta(days=7)


class Launch(NamedTuple):
    """What the launcher says of this process."""

    rank: int
    size: int
    local: int
    """Its number on this machine."""
    beside: int
    """How many there are on this machine."""


def launch() -> Launch | None:
    """Return what ``torchrun`` says in the environment, or nothing where it started no group.

    Raises:
        UserError: the variables contradict each other.
    """
    names = ("RANK", "WORLD_SIZE")
    if not all(os.environ.get(name) for name in names):
        return None
    words = [os.environ[name] for name in names] + [
        os.environ.get("LOCAL_RANK") or "0",
        os.environ.get("LOCAL_WORLD_SIZE") or "1",
    ]
    if not all(word.isdecimal() for word in words) or not int(words[0]) < int(words[1]):
        raise UserError(
            f"RANK={words[0]} and WORLD_SIZE={words[1]} are not those of a launcher.",
            "Start with torchrun, or unset both.",
        )
    rank, size, local, beside = map(int, words)
    return Launch(rank, size, local, max(1, beside)) if size > 1 else None


class Group:
    """The processes that work as one. This one, alone, is a group too: it need not wait for any."""

    rank, size = 0, 1

    @property
    def first(self) -> bool:
        """Whether this process decides, prints and writes."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Return this process's part of ``count`` things in a row; all parts are nearly equal."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def share(self, value: Any) -> Any:
        """Return the first process's ``value``, of what JSON knows, in all of them."""
        return value

    def collect(self, value: Any) -> list[Any]:
        """Return what each process gave, of what JSON knows, in order of rank."""
        return [value]

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace float tensors on the CPU, each the same shape everywhere, by their sums."""

    def follow(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace float tensors on the CPU by those of the first process."""

    def wait(self) -> None:
        """Go on when all processes are here."""
        self.collect(None)

    def agree(self, value: Any, what: str) -> None:
        """Stop where processes differ.

        Raises:
            UserError: ``value`` is not the same everywhere.
        """
        values = self.collect(value)
        if any(other != values[0] for other in values):
            number = next(i for i, other in enumerate(values) if other != values[0])
            raise UserError(
                f"The processes 0 and {number} do not agree on {what}: "
                f"{values[0]} and {values[number]}.",
                "All need the same package, weights and files, on a disk that all see.",
            )


class _Joined(Group):
    def __init__(self, handle: Any) -> None:
        import torch.distributed as dist

        self._handle = handle
        self.rank, self.size = dist.get_rank(handle), dist.get_world_size(handle)

    def share(self, value: Any) -> Any:
        return json.loads(self._exchange(json.dumps(value) if self.first else "")[0])

    def collect(self, value: Any) -> list[Any]:
        return [json.loads(text) for text in self._exchange(json.dumps(value))]

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        import torch.distributed as dist

        self._flat(tensors, lambda flat: dist.all_reduce(flat, group=self._handle))

    def follow(self, tensors: Sequence[torch.Tensor]) -> None:
        import torch.distributed as dist

        self._flat(tensors, lambda flat: dist.broadcast(flat, src=0, group=self._handle))

    def _exchange(self, text: str) -> list[str]:
        """Return the text of every process; as bytes of one length, as Gloo wants them."""
        import torch
        import torch.distributed as dist

        own = torch.frombuffer(bytearray(text.encode("ascii")) or bytearray(1), dtype=torch.uint8)
        with _others():
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(sizes, torch.tensor([len(text)]), group=self._handle)
            padded = torch.zeros(max(1, *map(int, sizes)), dtype=torch.uint8)
            padded[: len(own)] = own
            parts = [torch.empty_like(padded) for _ in range(self.size)]
            dist.all_gather(parts, padded, group=self._handle)
        return [part[: int(n)].numpy().tobytes().decode("ascii") for part, n in zip(parts, sizes)]

    def _flat(self, tensors: Sequence[torch.Tensor], exchange: Any) -> None:
        import torch

        if not tensors:
            return
        with torch.no_grad():
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            with _others():
                exchange(flat)
            for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors])):
                tensor.copy_(part.view_as(tensor))


_group = Group()


def group() -> Group:
    """Return the group that this process has joined; without one it is a group of its own."""
    return _group


@contextmanager
def joined() -> Iterator[Group]:
    """Work as one of the processes that ``torchrun`` started, if it did; the first alone speaks.

    Within it :func:`group` is the group of all. Each of them must ask for the same work, in the
    same order.

    Raises:
        UserError: the others cannot be reached.
    """
    global _group
    started = launch()
    if started is None or _group.size > 1:
        yield _group
        return
    import torch.distributed as dist

    alone, own = _group, not dist.is_initialized()
    with _others():
        if own:
            dist.init_process_group("gloo", timeout=_PATIENCE)
        # a script of the user's own may have made its group with another backend
        handle = dist.group.WORLD if own else dist.new_group(backend="gloo", timeout=_PATIENCE)
        _group = _Joined(handle)
    try:
        if _group.first:
            yield _group
        else:
            with hushed():
                yield _group
    finally:
        _group = alone
        if own:
            dist.destroy_process_group()


@contextmanager
def _others() -> Iterator[None]:
    """Say in one sentence that another process is gone."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(
            f"Another process of the group cannot be reached: {reason[0][:200].rstrip('.')}.",
            "Its own message says why it ended. Run the same command again: finished work is kept.",
        ) from error

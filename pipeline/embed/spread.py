"""Who encodes which part: this process, the processes of ``torchrun``, or actors on Ray.

Whoever computes, the cache ends the same: what is lacking is cut into the batches that one process
would have made, whole batches are handed out, and a key says nothing of who computed its row.

With ``torchrun`` all processes see one cache (``AAPE_HOME`` lies on a disk that all of them reach)
and each writes shards of its own into it, which needs no lock: a shard is whole or absent, and has
its own name. The first process holds the lock of the cache for all, decides what is lacking and
joins small shards at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from ..errors import UserError
from ..pictures import PictureError
from ..progress import step
from ..ranks import Group, group
from .pixels import hash_contents

if TYPE_CHECKING:
    from ..config import EncoderConfig
    from ..encoders.base import Encoder
    from .on_ray import RayActors

T = TypeVar("T")
Unencoded = dict[str, PictureError]
"""Why photos cannot be read, by their content."""
_PATIENCE = 90.0  # seconds until a network disk shows what another machine wrote


@dataclass
class Work(Generic[T]):
    """What is to be encoded into a store, piece by piece (a photo, a text).

    Attributes:
        lacking: the pieces that the store lacks, in their order. refresh: see what others wrote.
        writing: hold the store against other groups and join small shards at the end.
        fill: encode pieces in batches of a size, and write them.
        batch_size: of one process. views: how many rows of a batch a piece takes.
        number: what a piece is to all processes. piece: the way back.
        about: what decides the rows, such as the encoder's fingerprint.
    """

    lacking: Callable[[], list[T]]
    refresh: Callable[[], None]
    writing: Callable[[], AbstractContextManager[None]]
    fill: Callable[[Sequence[T], int], Unencoded]
    batch_size: int
    views: Callable[[T], int]
    number: Callable[[T], Any]
    piece: Callable[[Any], T]
    about: list[Any]

    def batch(self, pieces: Sequence[T]) -> int:
        """Return how many pieces one process takes at once where these are lacking."""
        return max(1, self.batch_size // max(map(self.views, pieces), default=1))

    def encode(self, pieces: Sequence[T], batch: int) -> Unencoded:
        """Fill with some of the pieces, ``batch`` of them at once."""
        return self.fill(pieces, batch * max(map(self.views, pieces), default=1))


def fill_store(work: Work[T]) -> tuple[list[T], Unencoded]:
    """Encode what is lacking, with the processes of the group if there is one.

    Returns:
        What was lacking, and what of it cannot be read: the same in all processes.

    Raises:
        UserError: the store cannot be written, or the processes disagree.
    """
    processes = group()
    if processes.size > 1:
        return _fill_together(work, processes)
    if not work.lacking():
        return [], {}
    with work.writing():
        pieces = work.lacking()
        return pieces, work.encode(pieces, work.batch(pieces))


def _fill_together(work: Work[T], processes: Group) -> tuple[list[T], Unencoded]:
    processes.agree(work.about, "the encoder")
    with ExitStack() as stack:
        numbers: list[Any] = []
        if processes.first and work.lacking():
            stack.enter_context(work.writing())
            numbers = [work.number(piece) for piece in work.lacking()]
        pieces = [work.piece(number) for number in processes.share(numbers)]
        if not pieces:
            work.refresh()
            return [], {}
        size = work.batch(pieces)
        own = work.encode(part_of(pieces, size, processes.rank, processes.size), size)
        unreadable: Unencoded = {}
        for part in processes.collect({content: str(why) for content, why in own.items()}):
            unreadable |= {content: PictureError(why) for content, why in part.items()}
        work.refresh()  # so that the first process joins what all have written
    processes.wait()
    work.refresh()
    _wait_to_see(work, len(unreadable))
    return pieces, unreadable


def part_of(pieces: Sequence[T], batch: int, rank: int, size: int) -> list[T]:
    """Return the pieces of one process: every ``size``-th batch of ``batch`` pieces.

    >>> [part_of(range(7), 2, rank, 2) for rank in range(2)]
    [[0, 1, 4, 5], [2, 3, 6]]
    """
    starts = range(rank * batch, len(pieces), size * batch)
    return [piece for start in starts for piece in pieces[start : start + batch]]


def _wait_to_see(work: Work[T], unreadable: int) -> None:
    """Wait until this machine sees what the others wrote; what cannot be read stays lacking."""
    until = time.monotonic() + _PATIENCE
    while len(work.lacking()) > unreadable and time.monotonic() < until:
        time.sleep(1)
        work.refresh()


def contents_of(files: Sequence[Path]) -> list[str | PictureError]:
    """Return the hash of each file, or why it cannot be read; each process hashes its part."""
    processes = group()
    if processes.size == 1:
        return hash_contents(files)
    own = hash_contents(files[processes.rank :: processes.size])
    parts = processes.collect([c if isinstance(c, str) else [str(c)] for c in own])
    found: list[str | PictureError] = [""] * len(files)
    for rank, part in enumerate(parts):
        found[rank :: processes.size] = [
            c if isinstance(c, str) else PictureError(c[0]) for c in part
        ]
    return found


def everywhere(good: bool) -> bool:
    """Say whether all processes are ``good``: they go on, or try again, together."""
    return all(group().collect(good))


_actors: WeakKeyDictionary[Encoder, RayActors] = WeakKeyDictionary()


def open_encoder(config: EncoderConfig, name: str = "", checkpoint: str = "") -> Encoder:
    """Load the encoder of a configuration; with ``ray.actors`` it encodes on a Ray cluster.

    Args:
        name, checkpoint: instead of those of the configuration.

    Raises:
        UserError: the name is unknown, its weights are not here, or there is no such cluster.
    """
    from ..encoders import load_encoder
    from ..encoders.base import CanCompile

    if config.ray.actors and group().size > 1:
        raise UserError(
            "Processes of torchrun encode by themselves and cannot use Ray as well.",
            "Start one process, or leave out encoder.ray.actors.",
        )
    name, checkpoint = name or config.name, checkpoint or config.checkpoint
    encoder = load_encoder(name, checkpoint, config.device)
    if config.compile and isinstance(encoder, CanCompile):
        encoder.compile_images()
    elif config.compile:
        step(f"{encoder.id} is not compiled: encoder.compile is for models of open_clip.")
    if config.ray.actors:
        from .on_ray import RayActors

        _actors[encoder] = RayActors(config.ray, encoder, checkpoint)
    return encoder


def actors_of(encoder: Encoder) -> RayActors | None:
    """Return the actors that encode in its place, if :func:`open_encoder` found some."""
    return _actors.get(encoder)

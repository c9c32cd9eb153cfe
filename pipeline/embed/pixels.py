"""Photos to pixels: read, turned into the wanted views, stacked in batches by several workers.

m views of a photo, h × w pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from ..files import hash_file
from ..pictures import PictureError, read_picture
from ..ranks import launch
from .image_cache import PLAIN, view_key

if TYPE_CHECKING:
    from ..encoders.base import Encoder, ImageTransform

_MOST_PROCESSES = 32
_AT_ONCE = 16  # photos that a process reads before it hands them on: the first come soon
Pixels = tuple["Job", "torch.Tensor | None", str]
"""A job, the pixels of its views (m, 3, h, w) and a remark; or nothing, and why."""


@dataclass
class Job:
    """One distinct image and what is wanted of it."""

    path: Path
    content: str
    views: list[int] = field(default_factory=list)
    tokens: bool = False

    def order(self) -> list[int]:
        """Return the views in the order in which the workers stack them."""
        return self.views if PLAIN in self.views or not self.tokens else [PLAIN, *self.views]


@dataclass
class Batch:
    """What a few jobs gave, stacked where they were read, so that they travel in few pieces.

    Attributes:
        jobs: those whose photo could be read. pixels: all their views, one job after another, in
            pieces (b, 3, h, w). remarks: what was done to photos, such as leaving out later frames.
        unreadable: why the others could not be read, by their content.
    """

    jobs: list[Job] = field(default_factory=list)
    pixels: list[torch.Tensor] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, read: Sequence[Pixels]) -> Batch:
        """Stack what was read."""
        parts = [pixels for _, pixels, _ in read if pixels is not None]
        return cls(
            [job for job, pixels, _ in read if pixels is not None],
            [torch.cat(parts)] if parts else [],
            [remark for _, pixels, remark in read if pixels is not None and remark],
            {job.content: why for job, pixels, why in read if pixels is None},
        )

    def __len__(self) -> int:
        """Return how many photos were looked at."""
        return len(self.jobs) + len(self.unreadable)

    def add(self, other: Batch) -> None:
        """Put another one's at the end."""
        self.jobs += other.jobs
        self.pixels += other.pixels
        self.remarks += other.remarks
        self.unreadable |= other.unreadable

    def pin_memory(self) -> Batch:
        """Move the pixels where a GPU fetches them by itself; the loader calls this in a thread."""
        self.pixels = [part.pin_memory() for part in self.pixels]
        return self

    def on(self, device: torch.device) -> torch.Tensor:
        """Return all pixels (b, 3, h, w) on a device.

        To a GPU they travel beside the work that it was given before, and nobody waits.
        """
        if device.type != "cuda":
            return torch.cat(self.pixels).to(device)
        beside, here = _travel(device), torch.cuda.current_stream(device)
        with torch.cuda.stream(beside):
            pixels = torch.cat([part.to(device, non_blocking=True) for part in self.pixels])
        here.wait_stream(beside)
        pixels.record_stream(here)
        return pixels


@cache
def _travel(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


class _Pictures(Dataset):
    """Reads an image and makes its views; holds no model, so it can go to another process."""

    def __init__(
        self,
        jobs: Sequence[Job],
        transform: ImageTransform,
        augment: ImageTransform,
        seed: int,
    ) -> None:
        self.jobs = jobs
        self.transform = transform
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, number: int) -> Pixels:
        job = self.jobs[number]
        try:
            picture = read_picture(job.path)
            views = [self._view(picture.image, job.content, view) for view in job.order()]
        except PictureError as error:
            return job, None, str(error)
        except MemoryError:
            return job, None, "it does not fit into memory"
        return job, torch.stack(views), picture.remark

    def _view(self, image: Image.Image, content: str, view: int) -> torch.Tensor:
        if view == PLAIN:
            return self.transform(image)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(view_key(content, view, self.seed)[:7], "big"))
            return self.augment(image)


def pixel_batches(
    encoder: Encoder, jobs: Sequence[Job], seed: int, workers: int | None, batch_size: int
) -> Iterator[Batch]:
    """Yield what was read, about ``batch_size`` pictures at a time, in the order of the jobs."""
    most = max((len(job.order()) for job in jobs), default=1)
    size = max(1, batch_size // most)
    pictures = _Pictures(jobs, encoder.transform, encoder.augment, seed)
    processes = _cores() if workers is None else workers
    if len(jobs) <= 2 * size:
        processes = 0
    plain = all(job.order() == [PLAIN] for job in jobs)
    if processes and encoder.device.type == "cpu" and plain:
        # The encoder takes all cores itself, so processes beside it would only be in its way: all
        # cores read a batch, then all cores encode it. Views draw from torch's one generator.
        yield from _read_by_threads(pictures, size, torch.get_num_threads())
        return
    # pieces of a batch end where it ends: what is encoded together does not depend on who reads
    most_at_once = max(1, _AT_ONCE // most) if processes else size
    at_once = next(n for n in range(min(size, most_at_once), 0, -1) if size % n == 0)
    pieces = DataLoader(
        pictures,
        batch_size=at_once,
        num_workers=processes,
        collate_fn=Batch.of,
        pin_memory=encoder.device.type == "cuda",
        prefetch_factor=max(4, 2 * size // (at_once * processes)) if processes else None,
    )
    batch = Batch()
    for piece in pieces:
        batch.add(piece)
        if len(batch) >= size:
            yield batch
            batch = Batch()
    if len(batch):
        yield batch


def _cores() -> int:
    """Return how many processes may read: the cores that this process may use.

    Processes that torchrun started on one machine share its cores.
    """
    allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    started = launch()
    share = len(allowed(0)) // (started.beside if started else 1)
    return max(1, min(share, _MOST_PROCESSES))


def _read_by_threads(pictures: _Pictures, size: int, threads: int) -> Iterator[Batch]:
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(pictures), size):
            rows = range(start, min(start + size, len(pictures)))
            yield Batch.of(list(pool.map(pictures.__getitem__, rows)))


def hash_contents(files: Sequence[Path]) -> list[str | PictureError]:
    """Return the hash of each file, or why it cannot be read."""

    def content(path: Path) -> str | PictureError:
        try:
            if path.stat().st_size:
                return hash_file(path)
        except (OSError, ValueError, UserError):
            pass
        try:  # a pipe, a folder, an empty file, nothing at all: the reader says which
            read_picture(path)
        except PictureError as error:
            return error
        return PictureError("it cannot be read")

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(content, files))

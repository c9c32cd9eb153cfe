"""Photos to pixels: read, turned into the wanted views, stacked in batches by several workers.

m views of a photo, h × w pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from ..files import hash_file
from ..pictures import PictureError, read_picture
from .image_cache import PLAIN, view_key

if TYPE_CHECKING:
    from ..encoders.base import Encoder, ImageTransform

Pixels = tuple[torch.Tensor | None, str]
"""Pixels of the views, (m, 3, h, w), and a remark; or nothing, and why."""


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
            return None, str(error)
        except MemoryError:
            return None, "it does not fit into memory"
        return torch.stack(views), picture.remark

    def _view(self, image: Image.Image, content: str, view: int) -> torch.Tensor:
        if view == PLAIN:
            return self.transform(image)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(view_key(content, view, self.seed)[:7], "big"))
            return self.augment(image)


def pixel_batches(
    encoder: Encoder, jobs: Sequence[Job], seed: int, workers: int, batch_size: int
) -> Iterator[list[tuple[Job, Pixels]]]:
    """Yield jobs and what was read for each, about ``batch_size`` pictures at a time."""
    most = max((len(job.order()) for job in jobs), default=1)
    size = max(1, batch_size // most)
    pictures = _Pictures(jobs, encoder.transform, encoder.augment, seed)
    parallel = workers and len(jobs) > 2 * size
    plain = all(job.order() == [PLAIN] for job in jobs)
    if parallel and encoder.device.type == "cpu" and plain:
        # The encoder takes all cores itself, so processes beside it would only be in its way: all
        # cores read a batch, then all cores encode it. Views draw from torch's one generator.
        loader = _read_by_threads(pictures, size, torch.get_num_threads())
    else:
        processes = workers if parallel else 0
        options: dict[str, Any] = {"prefetch_factor": 4} if processes else {}
        loader = DataLoader(
            pictures,
            batch_size=size,
            num_workers=processes,
            collate_fn=list,
            pin_memory=False,
            **options,
        )
    start = 0
    for group in loader:
        yield list(zip(jobs[start : start + size], group))
        start += size


def _read_by_threads(pictures: _Pictures, size: int, threads: int) -> Iterator[list[Pixels]]:
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(pictures), size):
            rows = range(start, min(start + size, len(pictures)))
            yield list(pool.map(pictures.__getitem__, rows))


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

"""Images to cached features: decoded in worker processes, encoded once, resumable.

A feature depends on the content of the file, the encoder's weights and precision, the
preprocessing, and for an augmented view on its number and the seed. The hash of all these is its
key, so a change of any cannot reuse an old feature, and one new image costs one image.

n images, v augmented views, d width of the joint space, t tokens of an image, e their width.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..encoders.base import folder_name, to_rgb
from ..errors import UserError
from ..files import cache_folder, hash_file, hash_value
from ..progress import bar
from ..raster import open_raster
from .shards import RowStore, row_key

if TYPE_CHECKING:
    from ..encoders.base import Encoder, ImageTransform

_VERSION = 1
_SECONDS_AT_RISK = 20.0  # what a kill may cost
_BYTES_AT_RISK = 128 << 20
PLAIN = -1  # the number of the view that is not augmented


@dataclass(frozen=True)
class Features:
    """Features of n images in the order of ``paths``."""

    paths: list[Path]
    x: np.ndarray
    """(n, d), float32, unit length."""
    views: np.ndarray | None
    """(n, v, d) of augmented views, or nothing."""
    tokens: np.ndarray | None
    """(n, t, e), float16, before pooling, or nothing."""
    reused: int
    """How many of the n images came from the cache alone."""
    computed: int


@dataclass
class _Job:
    """One distinct image and what is wanted of it."""

    path: Path
    content: str
    views: list[int] = field(default_factory=list)
    tokens: bool = False


def image_features(
    encoder: Encoder,
    paths: Sequence[str | Path],
    *,
    views: int = 0,
    seed: int = 0,
    tokens: bool = False,
    workers: int = 2,
    batch_size: int = 64,
) -> Features:
    """Encode images, or read what was encoded before.

    Args:
        views: augmented views of each image (random resized crop and flip), each determined by the
            content of the file, ``seed`` and its number.
        tokens: also return the spatial features before pooling.
        workers: processes that read and transform images; 0 does it in this one.
        batch_size: images through the encoder at once.

    Raises:
        UserError: there are no images, or one cannot be read; it is named.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise UserError("There are no images to encode.")
    contents = _hash_contents(files)
    first: dict[str, Path] = {}
    for path, content in zip(files, contents):
        first.setdefault(content, path)
    wanted = [PLAIN, *range(views)]
    keys = {(content, view): _key(content, view, seed) for content in first for view in wanted}
    folder = _folder(encoder)
    rows = RowStore(folder / "rows", (encoder.dim,), np.float32)
    shape = _token_shape(encoder) if tokens else ()
    maps = RowStore(folder / "tokens", shape, np.float16) if tokens else None

    def lacking() -> list[_Job]:
        jobs = []
        for content, path in first.items():
            lacks = [view for view in wanted if keys[content, view] not in rows]
            no_map = maps is not None and keys[content, PLAIN] not in maps
            if lacks or no_map:
                jobs.append(_Job(path, content, lacks, no_map))
        return jobs

    for _ in range(2):  # a second time if a damaged shard was found on reading
        jobs = lacking()
        if jobs:
            with rows.writing():
                if maps is not None:
                    maps.refresh()
                jobs = lacking()
                _fill(encoder, jobs, keys, rows, maps, seed, workers, batch_size)
                rows.merge()
        try:
            x = rows.gather([keys[content, PLAIN] for content in contents])
            every = [keys[content, view] for content in contents for view in range(views)]
            viewed = rows.gather(every).reshape(len(files), views, -1) if views else None
            spatial = maps.gather([keys[c, PLAIN] for c in contents]) if maps is not None else None
        except KeyError:
            rows.refresh()
            if maps is not None:
                maps.refresh()
            continue
        fresh = {job.content for job in jobs}
        computed = sum(content in fresh for content in contents)
        return Features(files, x, viewed, spatial, len(files) - computed, computed)
    raise UserError(f"The feature cache in {folder} cannot be read.", "Delete that folder.")


def _hash_contents(files: Sequence[Path]) -> list[str]:
    def content(path: Path) -> str:
        try:
            return hash_file(path)
        except OSError as error:
            raise UserError(f"Cannot read the image {path}: {error.strerror}.") from error

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(content, files))


def _key(content: str, view: int, seed: int) -> bytes:
    return row_key(content, view, seed if view != PLAIN else "")


def _folder(encoder: Encoder) -> Path:
    key = hash_value([_VERSION, encoder.fingerprint, encoder.preprocessing, encoder.precision])
    return cache_folder("features", f"{folder_name(encoder.id)}-{key[:16]}")


def _token_shape(encoder: Encoder) -> tuple[int, int]:
    pixels = encoder.transform(Image.new("RGB", (32, 32)))[None]
    _, count, width = encoder.image_tokens(pixels).shape
    return count, width


class _Pictures(Dataset):
    """Reads an image and makes its views; holds no model, so it can go to another process."""

    def __init__(
        self, jobs: list[_Job], transform: ImageTransform, augment: ImageTransform, seed: int
    ) -> None:
        self.jobs = jobs
        self.transform = transform
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, number: int) -> torch.Tensor | str:
        """Return the pixels of the wanted views, (m, 3, h, w), or why there are none."""
        job = self.jobs[number]
        try:
            with open_raster(job.path) as opened:
                opened.load()
                image = to_rgb(opened)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return str(error)
        return torch.stack([self._view(image, job.content, view) for view in _order(job)])

    def _view(self, image: Image.Image, content: str, view: int) -> torch.Tensor:
        if view == PLAIN:
            return self.transform(image)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(_key(content, view, self.seed)[:7], "big"))
            return self.augment(image)


def _fill(
    encoder: Encoder,
    jobs: list[_Job],
    keys: dict[tuple[str, int], bytes],
    rows: RowStore,
    maps: RowStore | None,
    seed: int,
    workers: int,
    batch_size: int,
) -> None:
    """Encode what the stores lack; shards are written every few seconds of work."""
    row_keys: list[bytes] = []
    row_parts: list[np.ndarray] = []
    map_keys: list[bytes] = []
    map_parts: list[np.ndarray] = []
    since = time.monotonic()

    def flush() -> None:
        nonlocal since
        if map_keys and maps is not None:
            maps.add(map_keys, np.concatenate(map_parts))
        if row_keys:
            rows.add(row_keys, np.concatenate(row_parts))
        for pending in (row_keys, row_parts, map_keys, map_parts):
            pending.clear()
        since = time.monotonic()

    display = bar()
    display.disable = len(jobs) <= batch_size
    with display:
        task = display.add_task("Encoding images", total=len(jobs))
        try:
            for batch, pixels in _batches(encoder, jobs, seed, workers, batch_size):
                labels = [(job, view) for job in batch for view in _order(job)]
                if maps is not None and any(job.tokens for job in batch):
                    x, spatial = encoder.encode_images_and_tokens(pixels)
                    chosen = [
                        n for n, (job, view) in enumerate(labels) if view == PLAIN and job.tokens
                    ]
                    map_keys += [keys[labels[n][0].content, PLAIN] for n in chosen]
                    map_parts.append(spatial[chosen].half().cpu().numpy())
                else:
                    x = encoder.encode_images(pixels)
                new = [n for n, (job, view) in enumerate(labels) if view in job.views]
                row_keys += [keys[labels[n][0].content, labels[n][1]] for n in new]
                row_parts.append(x[new].float().cpu().numpy())
                display.advance(task, len(batch))
                heavy = sum(part.nbytes for part in (*row_parts, *map_parts)) > _BYTES_AT_RISK
                if heavy or time.monotonic() - since > _SECONDS_AT_RISK:
                    flush()
        finally:
            flush()


def _order(job: _Job) -> list[int]:
    """Return the views in the order in which the workers stack them."""
    return job.views if PLAIN in job.views or not job.tokens else [PLAIN, *job.views]


def _batches(
    encoder: Encoder, jobs: list[_Job], seed: int, workers: int, batch_size: int
) -> Iterator[tuple[list[_Job], torch.Tensor]]:
    """Yield jobs and their pixels (m, 3, h, w), about ``batch_size`` pictures at a time."""
    most = max((len(_order(job)) for job in jobs), default=1)
    size = max(1, batch_size // most)
    pictures = _Pictures(jobs, encoder.transform, encoder.augment, seed)
    parallel = workers and len(jobs) > 2 * size
    plain = all(_order(job) == [PLAIN] for job in jobs)
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
        batch = jobs[start : start + size]
        start += size
        for job, picture in zip(batch, group):
            if isinstance(picture, str):
                raise UserError(f"The image {job.path} cannot be read: {picture}.")
        yield batch, torch.cat(group).to(encoder.device, non_blocking=True)


def _read_by_threads(pictures: _Pictures, size: int, threads: int) -> Iterator[list[Any]]:
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(pictures), size):
            rows = range(start, min(start + size, len(pictures)))
            yield list(pool.map(pictures.__getitem__, rows))

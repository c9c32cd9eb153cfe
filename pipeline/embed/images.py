"""Images to cached features: decoded in worker processes, encoded once, resumable.

A feature depends on the content of the file, the rule by which it is read, the encoder's weights
and precision, the preprocessing, and for an augmented view on its number and the seed. The hash of
all these is its key, so a change of any cannot reuse an old feature, and one new image costs one.

n images, v augmented views, d width of the joint space, t tokens of an image, e their width.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from ..counts import counted
from ..errors import UserError
from ..pictures import PictureError, Unreadable
from ..progress import bar, step
from .image_cache import PLAIN, ImageCache, what_decides_rows
from .left_out import cannot_be_read, left_out
from .pixels import Batch, Job, pixel_batches
from .shards import BYTES_AT_RISK, SECONDS_AT_RISK, RowStore
from .spread import Unencoded, Work, actors_of, contents_of, everywhere, fill_store

if TYPE_CHECKING:
    from ..encoders.base import Encoder

_PICTURES_AT_ONCE = 64


@dataclass(frozen=True)
class Features:
    """Features of the n images that can be read, in the order in which they were asked for.

    ``kept`` says which these are: labels, captions and all else that hangs on an image must be
    taken by it. It is every number from 0 where all can be read.
    """

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
    kept: np.ndarray
    """(n,) positions of the images among those that were asked for."""
    unreadable: tuple[Unreadable, ...] = ()
    """The others, in order."""
    contents: tuple[str, ...] = ()
    """SHA-256 of each of the n files."""


def image_features(
    encoder: Encoder,
    paths: Sequence[str | Path],
    *,
    views: int = 0,
    seed: int = 0,
    tokens: bool = False,
    workers: int | None = None,
    batch_size: int = 64,
    strict: bool = True,
) -> Features:
    """Encode images, or read what was encoded before.

    Args:
        views: augmented views of each image (random resized crop and flip), each determined by the
            content of the file, ``seed`` and its number.
        tokens: also return the spatial features before pooling.
        workers: processes that read and transform images; 0 does it in this one, None takes all
            cores.
        batch_size: images through the encoder at once.
        strict: stop at images that cannot be read; otherwise they are left out and listed, and
            ``kept`` says which rows are there.

    Raises:
        UserError: there are no images, or with ``strict`` one cannot be read; it is named. The
            features of the others are kept.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise UserError("There are no images to encode.")
    contents = contents_of(files)
    cache = ImageCache(encoder, views, seed, tokens)
    bad: dict[str, PictureError] = {}
    fresh: set[str] = set()
    work = _work(encoder, cache, files, contents, bad, workers, batch_size)
    for _ in range(2):  # a second time if a damaged shard was found on reading
        jobs, unreadable = fill_store(work)
        bad |= unreadable
        fresh |= {job.content for job in jobs}
        read = [(i, c) for i, c in enumerate(contents) if isinstance(c, str) and c not in bad]
        try:
            found = cache.gather([content for _, content in read])
        except KeyError:
            found = None
        if not everywhere(found is not None) or found is None:
            cache.refresh()
            continue
        others = left_out(files, contents, bad)
        if strict and others:
            raise cannot_be_read(others, len(files))
        computed = sum(content in fresh for _, content in read)
        kept = np.array([i for i, _ in read], dtype=np.int64)
        return Features(
            [files[i] for i in kept],
            *found,
            reused=len(read) - computed,
            computed=computed,
            kept=kept,
            unreadable=tuple(others),
            contents=tuple(content for _, content in read),
        )
    raise UserError(f"The feature cache in {cache.folder} cannot be read.", "Delete that folder.")


def picture_features(encoder: Encoder, pictures: Sequence[Image.Image]) -> np.ndarray:
    """Encode open RGB pictures (:func:`.pictures.as_picture` makes them): (n, d), not cached."""
    rows = [np.zeros((0, encoder.dim), np.float32)]
    for start in range(0, len(pictures), _PICTURES_AT_ONCE):
        part = pictures[start : start + _PICTURES_AT_ONCE]
        pixels = torch.stack([encoder.transform(picture) for picture in part])
        rows.append(encoder.encode_images(pixels.to(encoder.device)).float().cpu().numpy())
    return np.concatenate(rows)


def _work(
    encoder: Encoder,
    cache: ImageCache,
    files: Sequence[Path],
    contents: Sequence[str | PictureError],
    bad: dict[str, PictureError],
    workers: int | None,
    batch_size: int,
) -> Work[Job]:
    """Return what is to be done, for whoever does it."""
    first: dict[str, int] = {}
    for number, content in enumerate(contents):
        if isinstance(content, str):
            first.setdefault(content, number)
    named = [content if isinstance(content, str) else "" for content in contents]
    actors = actors_of(encoder)

    def fill(jobs: Sequence[Job], size: int) -> Unencoded:
        if actors and actors.pay(sum(len(job.order()) for job in jobs), size):
            return actors.fill_images(cache, jobs, size)
        return _fill(encoder, cache, jobs, workers, size)

    return Work(
        lacking=lambda: _lacking(cache, files, contents, bad),
        refresh=cache.refresh,
        writing=cache.writing,
        fill=fill,
        batch_size=batch_size,
        views=lambda job: len(job.order()),
        number=lambda job: [first[job.content], job.views, job.tokens],
        piece=lambda told: Job(files[told[0]], named[told[0]], *told[1:]),
        about=what_decides_rows(encoder),
    )


def _lacking(
    cache: ImageCache,
    files: Sequence[Path],
    contents: Sequence[str | PictureError],
    bad: dict[str, PictureError],
) -> list[Job]:
    """Return what is to be done: each distinct image once, by the first of its paths."""
    first: dict[str, Path] = {}
    for path, content in zip(files, contents):
        if isinstance(content, str) and content not in bad:
            first.setdefault(content, path)
    jobs = [Job(path, content, *cache.lacks(content)) for content, path in first.items()]
    return [job for job in jobs if job.views or job.tokens]


def _fill(
    encoder: Encoder,
    cache: ImageCache,
    jobs: Sequence[Job],
    workers: int | None,
    batch_size: int,
) -> dict[str, PictureError]:
    """Encode what the cache lacks; shards are written every few seconds of work.

    Returns:
        Why images cannot be read, by their content.
    """
    bad: dict[str, PictureError] = {}
    remarks: Counter[str] = Counter()
    pending = _Pending(cache)
    display = bar()
    display.disable = len(jobs) <= batch_size
    with display:
        task = display.add_task("Encoding images", total=len(jobs))
        ahead = _Encoded()
        try:
            for batch in pixel_batches(encoder, jobs, cache.seed, workers, batch_size):
                display.advance(task, len(batch))
                bad |= {content: PictureError(why) for content, why in batch.unreadable.items()}
                remarks.update(batch.remarks)
                # a GPU computes this batch while the one before is read back and kept
                behind, ahead = ahead, _encode(encoder, batch)
                behind.keep(pending)
                pending.flush_if_late()
        finally:
            ahead.keep(pending)
            pending.flush()
    for remark, count in remarks.items():
        step(f"{counted(count, 'photo is', 'photos are')} {remark}")
    return bad


@dataclass
class _Encoded:
    """What of a batch was lacking, on the encoder's device, where it may not be computed yet."""

    new: list[tuple[Job, int]] = field(default_factory=list)
    x: torch.Tensor | None = None
    mapped: list[tuple[Job, int]] = field(default_factory=list)
    maps: torch.Tensor | None = None

    def keep(self, pending: _Pending) -> None:
        """Wait for it, and hand it on."""
        if self.maps is not None:
            pending.add_maps(self.mapped, self.maps.cpu().numpy())
        if self.x is not None:
            pending.add_rows(self.new, self.x.float().cpu().numpy())


def _encode(encoder: Encoder, batch: Batch) -> _Encoded:
    """Encode the views of one batch, and choose those that were lacking."""
    if not batch.jobs:
        return _Encoded()
    pixels = batch.on(encoder.device)
    rows = [(job, view) for job in batch.jobs for view in job.order()]
    new = [n for n, (job, view) in enumerate(rows) if view in job.views]
    if not any(job.tokens for job in batch.jobs):
        return _Encoded([rows[n] for n in new], encoder.encode_images(pixels)[new])
    x, spatial = encoder.encode_images_and_tokens(pixels)
    chosen = [n for n, (job, view) in enumerate(rows) if view == PLAIN and job.tokens]
    return _Encoded(
        [rows[n] for n in new], x[new], [rows[n] for n in chosen], spatial[chosen].half()
    )


class _Pending:
    """What is encoded and not yet on the disk."""

    def __init__(self, cache: ImageCache) -> None:
        self._cache = cache
        self._rows: tuple[list[bytes], list[np.ndarray]] = [], []
        self._maps: tuple[list[bytes], list[np.ndarray]] = [], []
        self._since = time.monotonic()

    def add_rows(self, views: Sequence[tuple[Job, int]], rows: np.ndarray) -> None:
        self._add(self._rows, views, rows)

    def add_maps(self, views: Sequence[tuple[Job, int]], maps: np.ndarray) -> None:
        self._add(self._maps, views, maps)

    def flush_if_late(self) -> None:
        heavy = sum(part.nbytes for part in (*self._rows[1], *self._maps[1])) > BYTES_AT_RISK
        if heavy or time.monotonic() - self._since > SECONDS_AT_RISK:
            self.flush()

    def flush(self) -> None:
        self._write(self._cache.maps, self._maps)
        self._write(self._cache.rows, self._rows)
        self._since = time.monotonic()

    def _add(
        self,
        kind: tuple[list[bytes], list[np.ndarray]],
        views: Sequence[tuple[Job, int]],
        values: np.ndarray,
    ) -> None:
        kind[0].extend(self._cache.key(job.content, view) for job, view in views)
        kind[1].append(values)

    @staticmethod
    def _write(store: RowStore | None, kind: tuple[list[bytes], list[np.ndarray]]) -> None:
        keys, parts = kind
        if store is not None and keys:
            store.add(keys, np.concatenate(parts))
        keys.clear()
        parts.clear()

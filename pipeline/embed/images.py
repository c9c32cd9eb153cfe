"""Images to cached features: decoded in worker processes, encoded once, resumable.

A feature depends on the content of the file, the rule by which it is read, the encoder's weights
and precision, the preprocessing, and for an augmented view on its number and the seed. The hash of
all these is its key, so a change of any cannot reuse an old feature, and one new image costs one.

n images, v augmented views, d width of the joint space, t tokens of an image, e their width.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..encoders.base import folder_name
from ..errors import UserError
from ..files import cache_folder, hash_file, hash_value
from ..pictures import READING_VERSION, PictureError, Unreadable, read_picture, unreadable
from ..progress import bar, step
from .shards import RowStore, row_key

if TYPE_CHECKING:
    from ..encoders.base import Encoder, ImageTransform

_PICTURES_AT_ONCE = 64
_SHOWN = 5  # names of photos that are left out
_SECONDS_AT_RISK = 20.0  # what a kill may cost
_BYTES_AT_RISK = 128 << 20
PLAIN = -1  # the number of the view that is not augmented


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
    strict: bool = True,
) -> Features:
    """Encode images, or read what was encoded before.

    Args:
        views: augmented views of each image (random resized crop and flip), each determined by the
            content of the file, ``seed`` and its number.
        tokens: also return the spatial features before pooling.
        workers: processes that read and transform images; 0 does it in this one.
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
    contents = _hash_contents(files)
    first: dict[str, Path] = {}
    for path, content in zip(files, contents):
        if isinstance(content, str):
            first.setdefault(content, path)
    bad: dict[str, PictureError] = {}
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
            if (lacks or no_map) and content not in bad:
                jobs.append(_Job(path, content, lacks, no_map))
        return jobs

    fresh: set[str] = set()
    for _ in range(2):  # a second time if a damaged shard was found on reading
        jobs = lacking()
        if jobs:
            with rows.writing():
                if maps is not None:
                    maps.refresh()
                jobs = lacking()
                bad |= _fill(encoder, jobs, keys, rows, maps, seed, workers, batch_size)
                fresh |= {job.content for job in jobs}
                rows.merge()
        read = [(i, c) for i, c in enumerate(contents) if isinstance(c, str) and c not in bad]
        there = [content for _, content in read]
        try:
            x = rows.gather([keys[content, PLAIN] for content in there])
            every = [keys[content, view] for content in there for view in range(views)]
            viewed = rows.gather(every).reshape(len(there), views, -1) if every else None
            spatial = maps.gather([keys[c, PLAIN] for c in there]) if maps is not None else None
        except KeyError:
            rows.refresh()
            if maps is not None:
                maps.refresh()
            continue
        left_out = _left_out(files, contents, bad)
        if strict and left_out:
            raise cannot_be_read(left_out, len(files))
        computed = sum(content in fresh for content in there)
        kept = np.array([i for i, _ in read], dtype=np.int64)
        return Features(
            [files[i] for i, _ in read],
            x,
            viewed,
            spatial,
            len(there) - computed,
            computed,
            kept,
            tuple(left_out),
        )
    raise UserError(f"The feature cache in {folder} cannot be read.", "Delete that folder.")


def picture_features(encoder: Encoder, pictures: Sequence[Image.Image]) -> np.ndarray:
    """Encode open RGB pictures (:func:`.pictures.as_picture` makes them): (n, d), not cached."""
    rows = [np.zeros((0, encoder.dim), np.float32)]
    for start in range(0, len(pictures), _PICTURES_AT_ONCE):
        part = pictures[start : start + _PICTURES_AT_ONCE]
        pixels = torch.stack([encoder.transform(picture) for picture in part])
        rows.append(encoder.encode_images(pixels.to(encoder.device)).float().cpu().numpy())
    return np.concatenate(rows)


def _hash_contents(files: Sequence[Path]) -> list[str | PictureError]:
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


def _left_out(
    files: Sequence[Path], contents: Sequence[str | PictureError], bad: dict[str, PictureError]
) -> list[Unreadable]:
    left_out = []
    for path, content in zip(files, contents):
        error = bad.get(content) if isinstance(content, str) else content
        if error is not None:
            left_out.append(unreadable(path, error))
    return left_out


def cannot_be_read(left_out: Sequence[Unreadable], whole: int) -> UserError:
    """Build the error that stops at photos which cannot be read."""
    more = f"; {len(left_out):,} of {whole:,} photos in all" if len(left_out) > 1 else ""
    return UserError(
        f"The image {left_out[0].path} cannot be read: {left_out[0].reason}{more}.",
        "Repair or remove it, or leave out --strict to go on without.",
    )


def check_there(left_out: Sequence[Unreadable], whole: int) -> None:
    """Stop where photos that a data set lists do not exist: then it is not whole.

    Raises:
        UserError: one is absent; it is named.
    """
    absent = [entry for entry in left_out if entry.absent]
    if absent:
        raise UserError(
            f"{len(absent):,} of {whole:,} photos are not there, the first: {absent[0].path}.",
            "`aape datasets check` lists what is missing.",
        )


def say_left_out(left_out: Sequence[Unreadable], whole: int, what: str) -> str:
    """Say on standard error how many photos are left out, and which; return the sentence.

    ``what`` they are: "training photos". An empty string if there are none.
    """
    once = list(dict.fromkeys(left_out))
    if not once:
        return ""
    shown = "; ".join(map(str, once[:_SHOWN])) + ("; …" if len(once) > _SHOWN else "")
    sentence = f"{len(once):,} of {whole:,} {what} cannot be read and are left out: {shown}"
    step(sentence)
    return sentence


def _key(content: str, view: int, seed: int) -> bytes:
    return row_key(content, view, seed if view != PLAIN else "")


def _folder(encoder: Encoder) -> Path:
    key = hash_value(
        [READING_VERSION, encoder.fingerprint, encoder.preprocessing, encoder.precision]
    )
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

    def __getitem__(self, number: int) -> tuple[torch.Tensor | None, str]:
        """Return the pixels of the wanted views, (m, 3, h, w), and a remark, or why not."""
        job = self.jobs[number]
        try:
            picture = read_picture(job.path)
            views = [self._view(picture.image, job.content, view) for view in _order(job)]
        except PictureError as error:
            return None, str(error)
        except MemoryError:
            return None, "it does not fit into memory"
        return torch.stack(views), picture.remark

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
) -> dict[str, PictureError]:
    """Encode what the stores lack; shards are written every few seconds of work.

    Returns:
        Why images cannot be read, by their content.
    """
    bad: dict[str, PictureError] = {}
    remarks: Counter[str] = Counter()
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
            for whole, found in _batches(encoder, jobs, seed, workers, batch_size):
                display.advance(task, len(whole))
                for job, (pixels, remark) in zip(whole, found):
                    if pixels is None:
                        bad[job.content] = PictureError(remark)
                    elif remark:
                        remarks[remark] += 1
                read = [
                    (job, pixels) for job, (pixels, _) in zip(whole, found) if pixels is not None
                ]
                if not read:
                    continue
                batch = [job for job, _ in read]
                pixels = torch.cat([part for _, part in read])
                pixels = pixels.to(encoder.device, non_blocking=True)
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
                heavy = sum(part.nbytes for part in (*row_parts, *map_parts)) > _BYTES_AT_RISK
                if heavy or time.monotonic() - since > _SECONDS_AT_RISK:
                    flush()
        finally:
            flush()
    for remark, count in remarks.items():
        step(f"{count:,} {'photo is' if count == 1 else 'photos are'} {remark}")
    return bad


def _order(job: _Job) -> list[int]:
    """Return the views in the order in which the workers stack them."""
    return job.views if PLAIN in job.views or not job.tokens else [PLAIN, *job.views]


def _batches(
    encoder: Encoder, jobs: list[_Job], seed: int, workers: int, batch_size: int
) -> Iterator[tuple[list[_Job], list[tuple[torch.Tensor | None, str]]]]:
    """Yield jobs and what was read for each, about ``batch_size`` pictures at a time."""
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
        yield jobs[start : start + size], group
        start += size


def _read_by_threads(pictures: _Pictures, size: int, threads: int) -> Iterator[list[Any]]:
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(pictures), size):
            rows = range(start, min(start + size, len(pictures)))
            yield list(pool.map(pictures.__getitem__, rows))

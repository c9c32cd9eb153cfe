"""Encoding on a Ray cluster: actors hold the encoder, this process writes the cache.

Ray Data hands parts of the work, each of several whole batches, to actors. What they encode streams
back batch by batch. An actor whose node dies is started again elsewhere and its part done again, so
the cache is that of one process. Nodes need the photos, under the same paths and with the same
content, and the weights of the encoder; a node that has others is an error, not another feature.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import EncodingRayConfig
from ..counts import counted
from ..errors import UserError
from ..pictures import PictureError
from ..progress import bar, step
from ..ray_cluster import failed_worker, join_cluster
from .image_cache import what_decides_rows
from .pixels import Job, hash_contents, pixel_batches
from .shards import BYTES_AT_RISK, SECONDS_AT_RISK

if TYPE_CHECKING:
    from ..encoders.base import Encoder
    from .image_cache import ImageCache
    from .shards import RowStore

_LEAST_BATCHES = 8  # for less it does not pay to load the encoder elsewhere
_BATCHES_OF_A_PART = 16  # what the death of a node costs


class _Actor:
    """The encoder on one node. Ray keeps it alive between parts."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        import ray
        import torch

        from ..encoders import load_encoder

        if torch.get_num_threads() != wanted["threads"]:  # to set the same again changes last bits
            torch.set_num_threads(wanted["threads"])
        self._threads = wanted["threads"]
        self._node = ray.get_runtime_context().get_node_id()
        given = (wanted[name] for name in ("name", "checkpoint", "device", "precision"))
        self._encoder = load_encoder(*given)
        found = what_decides_rows(self._encoder)
        if found != wanted["rows"]:
            raise UserError(
                f"A Ray node has another encoder: {', '.join(found)} instead of "
                f"{', '.join(wanted['rows'])}."
            )

    def __call__(self, table: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for text in table["part"]:
            part = json.loads(text)
            if "texts" in part:
                yield from self._encode_texts(**part)
            else:
                yield from self._encode_images(**part)

    def _encode_texts(self, texts: list[str], batch: int) -> Iterator[dict[str, Any]]:
        for start in range(0, len(texts), batch):
            some = texts[start : start + batch]
            rows = self._encoder.encode_text(some)
            yield self._answer({"texts": some}, rows=rows)

    def _encode_images(self, jobs: list[Any], seed: int, batch: int) -> Iterator[dict[str, Any]]:
        from .images import _encode

        wanted = [Job(Path(path), *rest) for path, *rest in jobs]
        for job, content in zip(wanted, hash_contents([job.path for job in wanted])):
            if content != job.content:
                raise UserError(f"{job.path} is not the same file on all Ray nodes.")
        for read in pixel_batches(self._encoder, wanted, seed, self._threads, batch):
            kept = _Kept()
            _encode(self._encoder, read).keep(kept)  # type: ignore[arg-type]
            told = {
                "count": len(read),
                "unreadable": read.unreadable,
                "remarks": read.remarks,
                "rows": kept.views["rows"],
                "maps": kept.views["maps"],
            }
            yield self._answer(told, **kept.arrays)

    def _answer(self, told: dict[str, Any], **arrays: np.ndarray) -> dict[str, Any]:
        """Return one row of Ray Data: what it is in JSON, and arrays as bytes."""
        parts = {name: arrays[name].tobytes() if name in arrays else b"" for name in _ARRAYS}
        row = {"told": json.dumps(told), "node": self._node, **parts}
        return {name: [value] for name, value in row.items()}


_ARRAYS = ("rows", "maps")


class _Kept:
    """What was encoded of one batch, by the kind of store it goes to."""

    def __init__(self) -> None:
        self.views: dict[str, list[Any]] = {name: [] for name in _ARRAYS}
        self.arrays: dict[str, np.ndarray] = {}

    def add_rows(self, views: Sequence[tuple[Job, int]], rows: np.ndarray) -> None:
        self._add("rows", views, rows.astype(np.float32))

    def add_maps(self, views: Sequence[tuple[Job, int]], maps: np.ndarray) -> None:
        self._add("maps", views, maps.astype(np.float16))

    def _add(self, kind: str, views: Sequence[tuple[Job, int]], values: np.ndarray) -> None:
        self.views[kind] = [[job.content, view] for job, view in views]
        self.arrays[kind] = values


class RayActors:
    """Those who encode in the place of an encoder of this process.

    Args:
        encoder: whose rows they must make. checkpoint: its local weights.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, config: EncodingRayConfig, encoder: Encoder, checkpoint: str = "") -> None:
        join_cluster("", "encoder.ray.actors")
        self._config = config
        self._wanted = {
            "name": encoder.id,
            "checkpoint": str(Path(checkpoint).absolute()) if checkpoint else "",
            "device": "auto" if config.gpus else "cpu",
            "precision": encoder.precision,
            "threads": max(1, int(config.cpus)),
            "rows": what_decides_rows(encoder),
        }
        self.nodes: set[str] = set()  # those that have answered

    @staticmethod
    def pay(rows: int, batch: int) -> bool:
        """Say whether there are enough rows to do."""
        return rows > _LEAST_BATCHES * batch

    def fill_images(
        self, cache: ImageCache, jobs: Sequence[Job], batch_size: int
    ) -> dict[str, PictureError]:
        """Encode what the cache lacks, ``batch_size`` pictures at once.

        Returns:
            Why images cannot be read, by their content.
        """
        size = max(1, batch_size // max((len(job.order()) for job in jobs), default=1))
        parts = []
        for some in _cut(jobs, size * _BATCHES_OF_A_PART):
            most = max(len(job.order()) for job in some)
            told = [[str(j.path.absolute()), j.content, j.views, j.tokens] for j in some]
            parts.append({"jobs": told, "seed": cache.seed, "batch": size * most})
        rows = _Pending(cache.rows)
        maps = None if cache.maps is None else _Pending(cache.maps)
        unreadable: dict[str, PictureError] = {}
        remarks: Counter[str] = Counter()
        with bar() as display:
            task = display.add_task("Encoding images on Ray", total=len(jobs))
            try:
                for told, arrays in self._answers(parts):
                    display.advance(task, told["count"])
                    bad = told["unreadable"]
                    unreadable |= {content: PictureError(why) for content, why in bad.items()}
                    remarks.update(told["remarks"])
                    rows.add([cache.key(*view) for view in told["rows"]], arrays["rows"])
                    if maps is not None:
                        maps.add([cache.key(*view) for view in told["maps"]], arrays["maps"])
            finally:
                if maps is not None:
                    maps.flush()
                rows.flush()
        for remark, count in remarks.items():
            step(f"{counted(count, 'photo is', 'photos are')} {remark}")
        return unreadable

    def fill_texts(
        self, store: RowStore, texts: Sequence[str], keys: dict[str, bytes], batch_size: int
    ) -> None:
        """Encode texts that the store lacks, ``batch_size`` at once."""
        parts = [
            {"texts": list(some), "batch": batch_size}
            for some in _cut(texts, batch_size * _BATCHES_OF_A_PART)
        ]
        pending = _Pending(store)
        with bar() as display:
            task = display.add_task("Encoding texts on Ray", total=len(texts))
            try:
                for told, arrays in self._answers(parts):
                    display.advance(task, len(told["texts"]))
                    pending.add([keys[text] for text in told["texts"]], arrays["rows"])
            finally:
                pending.flush()

    def _answers(self, parts: Sequence[Any]) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
        """Yield what the actors return, batch by batch, in any order."""
        import ray.data
        from ray.exceptions import RayError

        config = self._config
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # our own bar says enough
        rows = [{"part": json.dumps(part)} for part in parts]
        answered = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(self._wanted,),
            compute=ray.data.ActorPoolStrategy(size=min(config.actors, len(rows))),
            batch_size=1,
            num_cpus=config.cpus,
            num_gpus=config.gpus or None,
        )
        try:
            for row in answered.iter_rows():
                self.nodes.add(row["node"])
                yield json.loads(row["told"]), {name: row[name] for name in _ARRAYS}
        except RayError as error:
            raise failed_worker(error) from error


class _Pending:
    """Rows that have come back and are not yet on the disk."""

    def __init__(self, store: RowStore) -> None:
        self._store = store
        self._keys: list[bytes] = []
        self._parts: list[bytes] = []
        self._since = time.monotonic()

    def add(self, keys: Sequence[bytes], values: bytes) -> None:
        """Keep the values of some keys; write a shard when there is much at risk."""
        self._keys += keys
        self._parts.append(values)
        late = time.monotonic() - self._since > SECONDS_AT_RISK
        if late or sum(map(len, self._parts)) > BYTES_AT_RISK:
            self.flush()

    def flush(self) -> None:
        """Write what there is as one shard."""
        if self._keys:
            rows = np.frombuffer(b"".join(self._parts), dtype=self._store.dtype)
            self._store.add(self._keys, rows.reshape(len(self._keys), *self._store.shape))
        self._keys, self._parts, self._since = [], [], time.monotonic()


def _cut(pieces: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Cut pieces into parts of a size."""
    return [pieces[start : start + size] for start in range(0, len(pieces), size)]

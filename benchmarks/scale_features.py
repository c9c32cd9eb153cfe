"""Photo features at a size: rows written into a cache, found again, and gathered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scale_memory import Figures, Watch

DIM = 512
_SHARD = 4096


def keys_of(first: int, count: int) -> list[bytes]:
    """Return keys that look like hashes: 16 bytes without order."""
    drawn = np.random.default_rng([2, first]).bytes(16 * count)
    return [drawn[16 * row : 16 * (row + 1)] for row in range(count)]


def write(folder: Path, rows: int) -> Figures:
    from aape.pipeline.embed.shards import RowStore

    watch = Watch()
    vectors = np.random.default_rng(0).standard_normal((_SHARD, DIM), dtype=np.float32)
    with watch("features: write"):
        store = RowStore(folder, (DIM,), np.float32)
        for first in range(0, rows, _SHARD):
            count = min(_SHARD, rows - first)
            store.add(keys_of(first, count), vectors[:count])
    return watch.figures


def read(folder: Path, rows: int) -> Figures:
    from aape.pipeline.embed.shards import RowStore

    watch = Watch()
    with watch("features: open"):
        store = RowStore(folder, (DIM,), np.float32)
    assert len(store) == rows
    keys = [
        key for first in range(0, rows, _SHARD) for key in keys_of(first, min(_SHARD, rows - first))
    ]
    with watch("features: read"):
        found = store.gather(keys)
    assert found.shape == (rows, DIM)
    return watch.figures

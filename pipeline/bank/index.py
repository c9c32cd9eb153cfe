"""The FAISS index beside a bank: nearest prompts by meaning, and never of another bank.

The file is a FAISS index that any FAISS reads, whose ids are the row numbers of the bank's kept
prompts, followed by a trailer: a JSON :class:`IndexReport`, the SHA-256 of that JSON, its length,
and a magic word. The trailer carries the bank's content hash, so an index of a bank that changed
is refused.

Letters: n rows, q queries, k results of a query, d embedding width.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import Section
from ..errors import UserError, unknown_name
from ..files import atomic_path, exclusive
from ..progress import track
from .search import exact_search, kept_rows, parts_of

if TYPE_CHECKING:
    from .bank import PromptBank

KINDS = ("auto", "flat", "ivf", "hnsw")

FLAT_BELOW = 200_000
_MAGIC = b"AAPEIDX2"
_DIGEST = 32  # bytes of a SHA-256
_TAIL = _DIGEST + 16  # what follows the JSON: digest, length, magic word
_RECALL_AT = 10
_RECALL_TARGET = 0.95
_RECALL_QUERIES = 256
_TRAIN_ROWS_PER_LIST = 40  # what FAISS asks for at least


class IndexReport(Section):
    """What an index is and how good: stored in its trailer.

    ``recall`` is the share of the exact 10 nearest prompts found, over ``recall_queries`` prompts
    of the bank, each without itself. ``effort`` is the number of lists (ivf) or candidates (hnsw)
    looked at for a query; it was raised until the recall reached 0.95.
    """

    version: int = 1
    content_hash: str
    kind: str
    rows: int
    dim: int
    effort: int
    recall: float
    recall_queries: int
    size: int
    sha256: str


def build_index(bank: PromptBank, kind: str = "auto") -> IndexReport:
    """Build the index of the bank's kept prompts and write it beside the bank, atomically.

    ``auto`` takes exact search (``flat``) below 200,000 prompts and ``ivf`` above. An ``ivf``
    index is mapped from the disk, so that a single search opens at once; ``hnsw`` answers faster
    once it is loaded as a whole, takes longer to build, and is chosen by name.

    Raises:
        UserError: the kind is unknown, the bank is damaged or has no kept prompt, the disk is full,
            or another process builds this index.
    """
    import faiss

    if kind not in KINDS:
        raise unknown_name("kind of index", kind, KINDS)
    rows = kept_rows(bank)
    if not len(rows):
        raise UserError(f"{bank.path} has no kept prompt to search.", "Look at: aape bank stats.")
    if kind == "auto":
        kind = "flat" if len(rows) < FLAT_BELOW else "ivf"
    index = _empty_index(bank, rows, kind)
    with exclusive(bank.index_path, "building"):
        parts = list(parts_of(rows))
        for part in track(parts, "Indexing") if len(rows) >= FLAT_BELOW else parts:
            index.add_with_ids(bank.vectors.take(part), part)
        effort, recall, queries = _tune(bank, index, rows, kind)
        with atomic_path(bank.index_path) as temporary:
            faiss.write_index(index, str(temporary))
            report = IndexReport(
                content_hash=bank.content_hash,
                kind=kind,
                rows=len(rows),
                dim=bank.metadata.dim,
                effort=effort,
                recall=recall,
                recall_queries=queries,
                size=temporary.stat().st_size,
                sha256=_hash_start(temporary, temporary.stat().st_size),
            )
            trailer = json.dumps(report.model_dump()).encode()
            with temporary.open("ab") as stream:
                stream.write(trailer + hashlib.sha256(trailer).digest())
                stream.write(struct.pack("<Q", len(trailer)) + _MAGIC)
    return report


def read_report(bank: PromptBank) -> IndexReport:
    """Read the trailer of the bank's index.

    Raises:
        UserError: there is no index, it is damaged, or it belongs to other rows than the bank's.
    """
    path, again = bank.index_path, f"Build it again: aape bank reindex {bank.path}"
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(size - 16, 0))
            length = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))[0]
            magic = stream.read()
            whole = magic == _MAGIC and length + _TAIL < size
            stream.seek(max(size - _TAIL - length, 0))
            trailer = stream.read(length) if whole else b""
            digest = stream.read(_DIGEST)
        report = IndexReport.model_validate(json.loads(trailer))
    except FileNotFoundError as error:
        raise UserError(f"The bank has no index {path}.", again) from error
    except ValueError as error:  # also JSON and validation errors
        raise UserError(f"The index {path} is damaged or truncated.", again) from error
    # the trailer's own digits count, too: it says how many lists to search and with what recall
    if report.size + len(trailer) + _TAIL != size or hashlib.sha256(trailer).digest() != digest:
        raise UserError(f"The index {path} is damaged or truncated.", again)
    if report.content_hash != bank.content_hash:
        raise UserError(f"The bank changed since the index {path} was built.", again)
    return report


def index_intact(bank: PromptBank, report: IndexReport) -> bool:
    """Compare the index's bytes with their checksum: reads all of it."""
    return _hash_start(bank.index_path, report.size) == report.sha256


class BankIndex:
    """An opened index. On a GPU if faiss-gpu and a device are there, else on the CPU.

    An ``ivf`` index stays on the disk and is mapped, unless it goes to a GPU.

    Raises:
        UserError: there is no index, it is damaged, or it belongs to other rows than the bank's.
    """

    def __init__(self, bank: PromptBank) -> None:
        import faiss

        self.report = read_report(bank)
        on_gpu = _gpus() > 0 and self.report.kind != "hnsw"
        mapped = self.report.kind == "ivf" and not on_gpu
        # What is read as a whole is checked as a whole; a mapped index is checked by `verify`.
        if not mapped and not index_intact(bank, self.report):
            raise UserError(
                f"The index {bank.index_path} is damaged.",
                f"Build it again: aape bank reindex {bank.path}",
            )
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if mapped else 0
        index: Any = faiss.read_index(str(bank.index_path), flags)
        _set_effort(index, self.report.kind, self.report.effort)
        self.device = "gpu" if on_gpu else "cpu"
        if on_gpu:
            self._resources = faiss.StandardGpuResources()  # must live as long as the index
            index = faiss.index_cpu_to_gpu(self._resources, 0, index)
        self._index = index

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the cosines ``(q, k)`` and rows ``(q, k)`` of the nearest kept prompts.

        ``queries`` is ``(q, d)`` of unit length. Where fewer than ``k`` were found, rows are -1.
        """
        return self._index.search(np.ascontiguousarray(queries, np.float32), k)


def _empty_index(bank: PromptBank, rows: np.ndarray, kind: str) -> Any:
    import faiss

    dim, product = bank.metadata.dim, faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        return faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, 32, product)
        graph.hnsw.efConstruction = 80
        return faiss.IndexIDMap2(graph)
    lists = max(1, min(round(2 * math.sqrt(len(rows))), len(rows) // _TRAIN_ROWS_PER_LIST))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, product)
    index.cp.niter = 8
    index.cp.min_points_per_centroid = 1  # small banks are no reason for a warning
    sample = np.random.default_rng(0).permutation(len(rows))[: lists * _TRAIN_ROWS_PER_LIST]
    index.train(bank.vectors.take(np.sort(rows[sample])))
    return index


def _tune(bank: PromptBank, index: Any, rows: np.ndarray, kind: str) -> tuple[int, float, int]:
    """Raise the effort until the recall is reached; return effort, recall, number of queries."""
    sample = np.random.default_rng(0).permutation(len(rows))[:_RECALL_QUERIES]
    own = rows[np.sort(sample)]
    queries = bank.vectors.take(own)
    count = min(_RECALL_AT + 1, len(rows))
    truth = _without_self(exact_search(bank, queries, count, rows)[1], own)
    largest = {"flat": 1, "ivf": getattr(index, "nlist", 1), "hnsw": 1024}[kind]
    effort = {"flat": 1, "ivf": 8, "hnsw": 32}[kind]
    while True:
        effort = min(effort, largest)
        _set_effort(index, kind, effort)
        found = _without_self(index.search(queries, count)[1], own)
        shares = [len(a & b) / len(a) if a else 1.0 for a, b in zip(truth, found, strict=True)]
        recall = float(np.mean(shares))
        if recall >= _RECALL_TARGET or effort >= largest:
            return effort, recall, len(own)
        effort *= 2


def _without_self(found: np.ndarray, own: np.ndarray) -> list[set[int]]:
    return [set(line.tolist()) - {int(row), -1} for line, row in zip(found, own, strict=True)]


def _set_effort(index: Any, kind: str, effort: int) -> None:
    import faiss

    if kind == "ivf":
        index.nprobe = effort
    elif kind == "hnsw":
        graph: Any = faiss.downcast_index(index.index)
        graph.hnsw.efSearch = effort


def _gpus() -> int:
    import faiss

    # faiss-cpu may count devices that it cannot use
    return faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0


def _hash_start(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while size > 0 and (block := stream.read(min(size, 1 << 22))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()

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
from .search import damaged_index, exact_search, kept_rows, parts_of

if TYPE_CHECKING:
    from .bank import PromptBank

KINDS = ("auto", "flat", "ivf", "ivfpq", "hnsw")

FLAT_BELOW = 200_000
CODES_FROM = 1_000_000  # prompts, whose vectors would fill memory while an index holds them
_MAGIC = b"AAPEIDX2"
_DIGEST = 32  # bytes of a SHA-256
_LISTS = ("ivf", "ivfpq")  # kinds that look at some lists of rows, mapped from the disk
_TAIL = _DIGEST + 16  # what follows the JSON: digest, length, magic word
_RECALL_AT = 10
_RECALL_TARGET = 0.95
_RECALL_QUERIES = 256
_TRAIN_ROWS_PER_LIST = 40  # what FAISS asks for at least
_CODE_BYTES = 64
_CODE_BITS = 8
# a result wanted, that ``ivfpq`` ranks again by the bank's vectors
_CANDIDATES = (4, 8, 16, 32, 64)


class IndexReport(Section):
    """What an index is and how good: stored in its trailer.

    ``recall`` is the share of the exact 10 nearest prompts found, over ``recall_queries`` prompts
    of the bank, each without itself. ``effort`` is the number of lists (ivf, ivfpq) or candidates
    (hnsw) looked at for a query; it was raised until the recall reached 0.95. ``candidates``
    (ivfpq) are ranked again, by the bank's own vectors, for each result that is wanted.
    """

    version: int = 1
    content_hash: str
    kind: str
    rows: int
    dim: int
    effort: int
    candidates: int = 0
    recall: float
    recall_queries: int
    size: int
    sha256: str


def build_index(bank: PromptBank, kind: str = "auto") -> IndexReport:
    """Build the index of the bank's kept prompts and write it beside the bank, atomically.

    ``auto`` takes exact search (``flat``) below 200,000 prompts, ``ivf`` below a million, else
    ``ivfpq``: codes of 64 bytes a prompt, whose candidates are ranked again by the bank's own
    vectors. Both are mapped from the disk, so that a single search opens at once. ``hnsw``, by
    name, answers faster once it is loaded as a whole, and takes longer to build.

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
        kind = "flat" if len(rows) < FLAT_BELOW else "ivf" if len(rows) < CODES_FROM else "ivfpq"
    index = _empty_index(bank, rows, kind)
    with exclusive(bank.index_path, "building"):
        parts = list(parts_of(rows))
        for part in track(parts, "Indexing") if len(rows) >= FLAT_BELOW else parts:
            index.add_with_ids(bank.vectors.take(part), part)
        effort, candidates, recall, queries = _tune(bank, index, rows, kind)
        with atomic_path(bank.index_path) as temporary:
            faiss.write_index(index, str(temporary))
            report = IndexReport(
                content_hash=bank.content_hash,
                kind=kind,
                rows=len(rows),
                dim=bank.metadata.dim,
                effort=effort,
                candidates=candidates,
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

    An ``ivf`` or ``ivfpq`` index stays on the disk and is mapped; ``flat`` and ``ivf`` go to a GPU.

    Raises:
        UserError: there is no index, it is damaged, or it belongs to other rows than the bank's.
    """

    def __init__(self, bank: PromptBank) -> None:
        import faiss

        self.report, self._bank = read_report(bank), bank
        on_gpu = _gpus() > 0 and self.report.kind in ("flat", "ivf")
        mapped = self.report.kind in _LISTS and not on_gpu
        # What is read as a whole is checked as a whole; a mapped index is checked by `verify`.
        if not mapped and not index_intact(bank, self.report):
            raise damaged_index(bank)
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
        queries = np.ascontiguousarray(queries, np.float32)
        if not self.report.candidates:
            return self._index.search(queries, k)
        found = self._index.search(queries, k * self.report.candidates)[1]
        return ranked_again(self._bank, queries, found, k)


def ranked_again(
    bank: PromptBank, queries: np.ndarray, found: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and rows (q, k) of the best of candidates (q, m) by the bank's own vectors.

    Raises:
        UserError: a candidate is no row of the bank.
    """
    if found.size and found.max() >= len(bank):
        raise damaged_index(bank)
    cosines = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    for number, query in enumerate(queries):
        candidates = np.unique(found[number][found[number] >= 0])
        near = bank.vectors.take(candidates) @ query
        best = np.argsort(-near, kind="stable")[:k]
        cosines[number, : len(best)], rows[number, : len(best)] = near[best], candidates[best]
    return cosines, rows


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
    wanted = lists * _TRAIN_ROWS_PER_LIST
    if kind == "ivf":
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, product)
    else:
        pieces = max(n for n in range(1, _CODE_BYTES + 1) if dim % n == 0)
        bits = min(_CODE_BITS, int(math.log2(len(rows))))
        index = faiss.IndexIVFPQ(faiss.IndexFlatIP(dim), dim, lists, pieces, bits, product)
        index.pq.cp.min_points_per_centroid = 1
        wanted = max(wanted, _TRAIN_ROWS_PER_LIST << bits)
    index.cp.niter = 8
    index.cp.min_points_per_centroid = 1  # small banks are no reason for a warning
    sample = np.random.default_rng(0).permutation(len(rows))[:wanted]
    index.train(bank.vectors.take(np.sort(rows[sample])))
    return index


def _tune(bank: PromptBank, index: Any, rows: np.ndarray, kind: str) -> tuple[int, int, float, int]:
    """Raise the effort until the recall is reached.

    Returns:
        The effort, the candidates a result (0 but for ivfpq), the recall, the number of queries.
    """
    sample = np.random.default_rng(0).permutation(len(rows))[:_RECALL_QUERIES]
    own = rows[np.sort(sample)]
    queries = bank.vectors.take(own)
    count = min(_RECALL_AT + 1, len(rows))
    truth = _without_self(exact_search(bank, queries, count, rows)[1], own)

    def recall(found: np.ndarray) -> float:
        pairs = zip(truth, _without_self(found, own), strict=True)
        return float(np.mean([len(a & b) / len(a) if a else 1.0 for a, b in pairs]))

    largest = {"flat": 1, "hnsw": 1024}.get(kind, getattr(index, "nlist", 1))
    effort = {"flat": 1, "hnsw": 32}.get(kind, 8)
    ladder = _CANDIDATES if kind == "ivfpq" else (0,)
    while True:
        effort = min(effort, largest)
        _set_effort(index, kind, effort)
        found = index.search(queries, count * max(1, ladder[-1]))[1]
        for candidates in ladder:
            if candidates:
                some = ranked_again(bank, queries, found[:, : count * candidates], count)[1]
            else:
                some = found
            reached = recall(some)
            if reached >= _RECALL_TARGET or (effort >= largest and candidates == ladder[-1]):
                return effort, candidates, reached, len(own)
        effort *= 2


def _without_self(found: np.ndarray, own: np.ndarray) -> list[set[int]]:
    return [set(line.tolist()) - {int(row), -1} for line, row in zip(found, own, strict=True)]


def _set_effort(index: Any, kind: str, effort: int) -> None:
    import faiss

    if kind in _LISTS:
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

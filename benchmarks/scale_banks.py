"""Steps of a bank's life at a size: written in pieces, opened, checked, indexed, searched, asked.

Rows are synthetic: 50 prompts a class, texts of 20 words, unit vectors around a centre a class, as
prompts of classes lie. No encoder and no language model is involved.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scale_memory import Figures, Watch
from synthetic_bank import metadata_of, table_with

if TYPE_CHECKING:
    import pyarrow as pa

DIM = 512
PROMPTS = 50  # a class
_CLASSES_A_PIECE = 1000


def vectors_of(first: int, classes: int) -> np.ndarray:
    """Return unit vectors of classes from number ``first``: cosine to the centre about 0.8."""
    random = np.random.default_rng([0, first])
    centres = random.standard_normal((classes, 1, DIM), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=2, keepdims=True)
    vectors = random.standard_normal((classes, PROMPTS, DIM), dtype=np.float32)
    vectors *= 0.75 / DIM**0.5
    vectors += centres
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return vectors.reshape(-1, DIM)


def table_of(first: int, classes: int) -> pa.Table:
    """Return the rows of classes from number ``first``."""
    n = classes * PROMPTS
    random = np.random.default_rng([1, first])
    words = [f"w{number:04}" for number in range(5000)]
    numbers = np.repeat(np.arange(first, first + classes, dtype=np.int32), PROMPTS)
    known = {
        "prompt_id": [f"{first * PROMPTS + row:032x}" for row in range(n)],
        "class_id": numbers,
        "class_name": [f"class {number}" for number in numbers],
        "text": [" ".join(words[w] for w in line) for line in random.integers(0, 5000, (n, 20))],
        "verdict": ["kept" if row % 10 else "duplicate" for row in range(n)],
    }
    return table_with(known, vectors_of(first, classes))


def pieces(classes: int) -> Iterator[pa.Table]:
    """Yield the rows of a bank, a part of a thousand classes at a time."""
    for first in range(0, classes, _CLASSES_A_PIECE):
        yield table_of(first, min(_CLASSES_A_PIECE, classes - first))


def write(path: Path, classes: int) -> Figures:
    from aape.pipeline.bank.folder import write_folder

    watch = Watch()
    with watch("write"):
        write_folder(path, pieces(classes), metadata_of(classes, DIM))
    return watch.figures


def read(path: Path, classes: int) -> Figures:
    from aape.pipeline.bank import PromptBank
    from aape.pipeline.bank.statistics import bank_info

    watch = Watch()
    with watch("open"):
        bank = PromptBank.open(path)
    with watch("bank info"):
        bank_info(bank)
    with watch("100 classes"):
        bank.reference_embeddings(np.linspace(0, classes - 1, 100).astype(int).tolist())
    return watch.figures


def texts(path: Path) -> Figures:
    """What a training reads of a bank: the embeddings of all kept prompts, and class means."""
    from aape.adapter.classification.data import ClassTexts
    from aape.pipeline.bank import PromptBank

    bank, watch = PromptBank.open(path), Watch()
    with watch("all classes"):
        prompts, mask = bank.reference_embeddings()
        names, plain = bank.metadata.class_names, prompts[:, 0]
        mean = ClassTexts(names, plain, plain, prompts, mask).described
    assert mean.shape == (len(names), DIM)
    return watch.figures


def verify(path: Path) -> Figures:
    from aape.pipeline.bank.verify import verify_bank

    watch = Watch()
    with watch("verify"):
        report = verify_bank(path)
    assert report.sound, report
    return watch.figures


def index(path: Path, kind: str) -> Figures:
    from aape.pipeline.bank import PromptBank

    watch = Watch()
    with watch(f"index {kind}"):
        report = PromptBank.open(path).reindex(kind)
    watch.figures[f"index {kind}, recall"] = report.recall
    watch.figures[f"index {kind} on disk, GiB"] = report.size / 2**30
    watch.figures[f"index {kind}, lists looked at"] = report.effort
    if report.candidates:
        watch.figures[f"index {kind}, candidates a result"] = report.candidates
    return watch.figures


def search(path: Path, kind: str) -> Figures:
    """Twenty searches by a fresh process, the first of which opens the index."""
    from aape.pipeline.bank import PromptBank
    from aape.pipeline.bank.search import SearchHit  # noqa: F401 (importing is not searching)

    bank, watch = PromptBank.open(path), Watch()
    queries = vectors_of(0, 20)[::PROMPTS]
    with watch(f"first search, {kind}"):
        bank.search(queries[0])
    with watch(f"20 searches, {kind}"):
        for query in queries:
            bank.search(query)
    return watch.figures


def sql(path: Path) -> Figures:
    import duckdb  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    from aape.pipeline.bank import PromptBank

    bank, watch = PromptBank.open(path), Watch()
    asked: dict[str, Any] = {
        "sql over all rows": "SELECT verdict, count(*), avg(length(text)) FROM bank GROUP BY 1",
        "sql by cosine": "SELECT text, array_cosine_similarity(embedding, (SELECT embedding FROM "
        "bank WHERE class_id = 7 LIMIT 1)) AS c FROM bank ORDER BY c DESC LIMIT 10",
    }
    for name, query in asked.items():
        with watch(name):
            bank.sql(query)
    return watch.figures

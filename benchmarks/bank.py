"""How fast is a bank: write, open, read a class, search; against pandas and plain numpy.

Rows are synthetic: texts of about 20 words and unit vectors in clusters, as prompts of classes lie.
No encoder and no language model is involved. Each size runs in processes of its own, one a
contender, so that peak memory is that contender's; all in one go, so that ratios are fair.

    python benchmarks/bank.py --sizes 20000 200000 1000000 --out results.json

prints a Markdown table and writes the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_bank import metadata_of, table_with

DIM = 512
CLASSES = 1000
QUERIES = 20
K = 10


def clustered_vectors(n: int) -> np.ndarray:
    """Unit vectors ``(n, 512)`` around a centre for each class: cosine to it about 0.8."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((CLASSES, DIM), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors = np.empty((n, DIM), np.float32)
    for start in range(0, n, 50_000):
        labels = np.arange(start, min(start + 50_000, n)) * CLASSES // n
        part = random.standard_normal((len(labels), DIM), dtype=np.float32)
        part *= 0.75 / DIM**0.5
        part += centres[labels]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        vectors[start : start + 50_000] = part
    return vectors


def columns(n: int) -> dict[str, Any]:
    """The other columns, as plain lists and arrays."""
    random = np.random.default_rng(1)
    words = [f"w{number:04}" for number in range(5000)]
    picks = random.integers(0, len(words), (n, 20))
    labels = (np.arange(n) * CLASSES // n).astype(np.int32)
    return {
        "prompt_id": [f"{number:032x}" for number in range(n)],
        "class_id": labels,
        "class_name": [f"class {label}" for label in labels],
        "text": [" ".join(words[pick] for pick in line) for line in picks],
        "verdict": ["kept" if number % 10 else "duplicate" for number in range(n)],
    }


def queries(vectors: np.ndarray) -> np.ndarray:
    """Queries near stored vectors, but none of them."""
    random = np.random.default_rng(2)
    chosen = vectors[random.integers(0, len(vectors), QUERIES)]
    noisy = chosen + 0.3 / DIM**0.5 * random.standard_normal(chosen.shape, dtype=np.float32)
    return (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)


class Timer:
    """Collects seconds by name, and the memory of this process."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def __call__(self, name: str, action: Callable[[], Any], repeats: int = 1) -> Any:
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            result = action()
            times.append(time.perf_counter() - start)
        self.figures[name] = min(times)
        return result

    def memory(self, name: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        self.figures[name] = round(peak, 3)


def bank_writes(folder: Path, n: int) -> dict[str, float]:
    from aape.pipeline.bank import write_bank

    data, vectors = columns(n), np.load(folder / "vectors.npy")
    table = table_with(data, vectors)
    del data
    metadata = metadata_of(CLASSES, DIM)
    timer = Timer()
    timer.memory("memory before writing, GiB")
    timer("write", lambda: write_bank(folder / "b.bank.parquet", table, metadata))
    timer.memory("peak memory of writing, GiB")
    return timer.figures


def bank_indexes(folder: Path, n: int) -> dict[str, float]:
    from aape.pipeline.bank import PromptBank

    timer = Timer()
    report = timer("build the index", PromptBank.open(folder / "b.bank.parquet").reindex)
    timer.figures |= {"recall": report.recall, "kind": report.kind, "effort": report.effort}
    timer.memory("peak memory of indexing, GiB")
    return timer.figures


def bank_reads(folder: Path, n: int) -> dict[str, float]:
    import pyarrow.parquet  # noqa: F401 (importing is not opening)

    from aape.pipeline.bank import PromptBank
    from aape.pipeline.bank.search import SearchHit  # noqa: F401

    path, timer = folder / "b.bank.parquet", Timer()
    bank = timer("open", lambda: PromptBank.open(path))
    timer("a class, first time", lambda: (bank.prompts(500), bank.reference_embeddings([500])))
    timer("a class, again", lambda: bank.reference_embeddings([500]), repeats=5)
    timer.memory("peak memory of reading, GiB")
    asked = np.load(folder / "queries.npy")
    timer("first search, index included", lambda: bank.search(asked[0], K))
    found = timer("20 searches", lambda: [bank.search(query, K) for query in asked])
    timer.memory("peak memory of searching, GiB")
    exact = timer("20 exact searches", lambda: exact_rows(bank, asked))
    truth = np.load(folder / "truth.npy")
    pairs = list(zip([[hit.row for hit in hits] for hits in found], truth, strict=True))
    shares = [len({*a} & {*b}) / K for a, b in pairs]
    timer.figures["recall, unseen queries"] = float(np.mean(shares))
    assert (np.sort(exact) == np.sort(truth)).all()
    query = "SELECT count(*), sum(length(text)) FROM bank WHERE class_id = 500"
    timer("SQL over a class", lambda: bank.sql(query))
    means = "SELECT class_id, count(*) FROM bank WHERE verdict = 'kept' GROUP BY 1"
    timer("SQL over all rows", lambda: bank.sql(means))
    near = "SELECT array_cosine_similarity(embedding, (SELECT embedding FROM bank WHERE class_id "
    near += "= 500 LIMIT 1)) AS cosine, text FROM bank ORDER BY 1 DESC LIMIT 10"
    timer("SQL by cosine over all rows", lambda: bank.sql(near))
    timer("all embeddings", lambda: [vectors.sum() for _, vectors in bank.vectors.groups()])
    return timer.figures


def exact_rows(bank: Any, asked: np.ndarray) -> np.ndarray:
    from aape.pipeline.bank.search import exact_search, kept_rows

    return exact_search(bank, asked, K, kept_rows(bank))[1]


def pandas_works(folder: Path, n: int) -> dict[str, float]:
    """A data frame with the vectors as a column of arrays, through pandas' own Parquet."""
    import pandas as pd
    import pyarrow.parquet  # noqa: F401

    data, path, timer = columns(n), folder / "pandas.parquet", Timer()
    frame = pd.DataFrame(data)
    frame["embedding"] = list(np.load(folder / "vectors.npy"))
    timer("write", lambda: frame.to_parquet(path))
    timer.memory("peak memory of writing, GiB")
    del frame, data
    frame = timer("open", lambda: pd.read_parquet(path))

    def one_class() -> tuple[list[str], np.ndarray]:
        chosen = frame[(frame.class_id == 500) & (frame.verdict == "kept")]
        return chosen.text.tolist(), np.stack(chosen.embedding)

    timer("a class, first time", one_class)
    timer("a class, again", one_class, repeats=5)
    kept = frame[frame.verdict == "kept"]

    def search(query: np.ndarray) -> Any:
        cosines = np.stack(kept.embedding) @ query
        return kept.iloc[np.argsort(-cosines)[:K]]

    timer("first search, index included", lambda: search(np.load(folder / "queries.npy")[0]))
    timer.figures["20 searches"] = 20 * timer.figures["first search, index included"]
    timer.memory("peak memory of searching, GiB")
    path.unlink()
    return timer.figures


def numpy_works(folder: Path, n: int) -> dict[str, float]:
    """Vectors as .npy (mapped), texts as JSON, labels as .npy: what a script would do."""
    data, timer = columns(n), Timer()
    vectors = np.load(folder / "vectors.npy")

    def write() -> None:
        np.save(folder / "n_vectors.npy", vectors)
        np.save(folder / "n_labels.npy", data["class_id"])
        np.save(folder / "n_kept.npy", np.array(data["verdict"]) == "kept")
        others = {name: list(map(str, value)) for name, value in data.items()}
        (folder / "n_texts.json").write_text(json.dumps(others))

    timer("write", write)
    timer.memory("peak memory of writing, GiB")

    def opened() -> tuple[Any, ...]:
        names = ("vectors", "labels", "kept")
        arrays = [np.load(folder / f"n_{name}.npy", mmap_mode="r") for name in names]
        return (*arrays, json.loads((folder / "n_texts.json").read_text()))

    vectors, labels, kept, texts = timer("open", opened)

    def one_class() -> tuple[list[str], np.ndarray]:
        rows = np.flatnonzero((labels == 500) & kept)
        return [texts["text"][row] for row in rows], vectors[rows]

    timer("a class, first time", one_class)
    timer("a class, again", one_class, repeats=5)
    rows = np.flatnonzero(kept)

    def search(query: np.ndarray) -> np.ndarray:
        return rows[np.argsort(-(vectors[rows] @ query))[:K]]

    asked = np.load(folder / "queries.npy")
    truth = [timer("first search, index included", lambda: search(asked[0]))]
    truth += timer("20 searches", lambda: [search(query) for query in asked])
    timer.memory("peak memory of searching, GiB")
    np.save(folder / "truth.npy", np.array(truth[1:]))
    for path in folder.glob("n_*"):
        path.unlink()
    return timer.figures


CONTENDERS: dict[str, list[Callable[[Path, int], dict[str, float]]]] = {
    "numpy": [numpy_works],
    "pandas": [pandas_works],
    "bank": [bank_writes, bank_indexes, bank_reads],
}


def run(size: int, scratch: Path) -> dict[str, dict[str, Any]]:
    """Run all contenders at one size, each step in a fresh process."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    fresh = multiprocessing.get_context("spawn")
    try:
        with fresh.Pool(1) as pool:
            pool.apply(_prepare, (folder, size))
        results: dict[str, dict[str, Any]] = {}
        for name, steps in CONTENDERS.items():
            results[name] = {}
            for step in steps:
                with fresh.Pool(1) as pool:
                    results[name] |= pool.apply(step, (folder, size))
        for name in ("b.bank.parquet", "b.bank.faiss"):
            results["bank"][f"bytes of {name}"] = (folder / name).stat().st_size
        return results
    finally:
        shutil.rmtree(folder)


def _prepare(folder: Path, size: int) -> None:
    vectors = clustered_vectors(size)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", queries(vectors))


def markdown(results: dict[int, dict[str, dict[str, Any]]]) -> str:
    """One table: a row for each size and figure, a column for each contender."""
    lines = ["| rows | figure | bank | pandas | numpy |", "| ---: | --- | ---: | ---: | ---: |"]
    for size, contenders in results.items():
        for figure, value in contenders["bank"].items():
            others = [contenders[name].get(figure) for name in ("pandas", "numpy")]
            cells = " | ".join(_cell(figure, each) for each in (value, *others))
            lines.append(f"| {size:,} | {figure} | {cells} |")
    return "\n".join(lines)


def _cell(figure: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if "GiB" in figure:
        return f"{value:.2f}"
    if "recall" in figure:
        return f"{value:.3f}"
    return f"{value * 1000:,.1f} ms" if value < 10 else f"{value:,.1f} s"


def main() -> None:
    """Run the sizes asked for; print the table and the machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=None, help="write the figures as JSON")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    results = {}
    for size in arguments.sizes:
        start = time.perf_counter()
        results[size] = run(size, arguments.scratch)
        print(f"{size:,} rows: {time.perf_counter() - start:.0f} s in all", flush=True)
    document = {"cores": os.cpu_count(), "width": DIM, "results": results}
    if arguments.out:
        arguments.out.write_text(json.dumps(document, indent=2))
    print(json.dumps(document))
    print(markdown(results))


if __name__ == "__main__":
    main()

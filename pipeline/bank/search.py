"""Nearest prompts of a bank: by its index where there is one, else by looking at each.

Letters: n rows, q queries, k results of a query, d embedding width.
"""

# pyarrow.compute makes its functions at import, so they are unknown to the type checker:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from .schema import KEPT

if TYPE_CHECKING:
    from .bank import PromptBank


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A prompt that a search found: its cosine to the query, and where it stands."""

    cosine: float
    row: int
    prompt_id: str
    dataset: str
    class_id: int
    class_name: str
    text: str


def search_prompts(
    bank: PromptBank,
    text_embedding: np.ndarray,
    k: int,
    class_id: int | None = None,
    dataset: str = "",
    exact: bool = False,
) -> list[SearchHit]:
    """Return the ``k`` kept prompts nearest to an embedding ``(d,)``; see ``PromptBank.search``.

    Raises:
        UserError: the embedding has another width, the index is of other rows, or something is
            damaged.
    """
    query = np.asarray(text_embedding, np.float32).reshape(1, -1)
    if query.shape[1] != bank.metadata.dim:
        raise UserError(
            f"The query has the width {query.shape[1]}, the bank {bank.metadata.dim}.",
            f"Encode it with {bank.metadata.encoder_id}.",
        )
    query = query / np.linalg.norm(query).clip(1e-12)
    if class_id is not None:
        rows = exact_search(bank, query, k, bank.kept_rows(class_id, dataset))[1]
    elif exact or not bank.index_path.exists():
        rows = exact_search(bank, query, k, kept_rows(bank))[1]
    else:
        rows = bank.index.search(query, k)[1]
    found = rows[0][rows[0] >= 0]
    if found.size and found.max() >= len(bank):
        raise damaged_index(bank)
    # an index that is mapped is not checked byte by byte, so the bank's own vectors, which are,
    # say how near a row is
    cosines = bank.vectors.take(found) @ query[0]
    order = np.argsort(-cosines, kind="stable")
    return [_hit(bank, float(cosines[i]), int(found[i])) for i in order]


def _hit(bank: PromptBank, cosine: float, row: int) -> SearchHit:
    # the directory knows the class: only two columns are decoded
    classes = bank.footer.classes
    entry = classes[bisect_right(classes, row, key=lambda entry: entry.start) - 1]
    name = bank.metadata.of(entry.dataset).class_names[entry.class_id]
    found = bank.rows(row, row + 1, ["prompt_id", "text"]).to_pylist()[0]
    return SearchHit(
        cosine, row, found["prompt_id"], entry.dataset, entry.class_id, name, found["text"]
    )


def damaged_index(bank: PromptBank) -> UserError:
    """Return the error of an index whose bytes are not what was written."""
    return UserError(
        f"The index {bank.index_path} is damaged.",
        f"Build it again: aape bank reindex {bank.path}",
    )


def exact_search(
    bank: PromptBank, queries: np.ndarray, k: int, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and row numbers ``(q, k)`` of the nearest of ``rows``, by looking at each.

    Reads the embeddings block by block from the bank, so memory stays small.
    """
    best = np.full((len(queries), k), -np.inf, np.float32)
    best_rows = np.full((len(queries), k), -1, np.int64)
    for part in parts_of(rows):
        cosines = queries @ bank.vectors.take(part).T  # (q, part)
        cosines = np.concatenate([best, cosines], axis=1)
        candidates = np.concatenate(
            [best_rows, np.broadcast_to(part, (len(queries), len(part)))], 1
        )
        top = np.argpartition(-cosines, k, axis=1)[:, :k]  # of k and at least one more
        best = np.take_along_axis(cosines, top, axis=1)
        best_rows = np.take_along_axis(candidates, top, axis=1)
    order = np.lexsort((best_rows, -best), axis=1)
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(best_rows, order, axis=1)


def kept_rows(bank: PromptBank) -> np.ndarray:
    """Return the row numbers of all kept prompts, ascending."""
    import pyarrow.compute as pc

    if sum(entry.kept for entry in bank.footer.classes) == len(bank):
        return np.arange(len(bank))
    found = []
    for group in range(len(bank.footer.groups)):  # not class by class: there may be 100,000
        start, stop = bank.vectors.start(group), bank.vectors.start(group + 1)
        verdicts = bank.rows(start, stop, ["verdict"]).column("verdict")
        found.append(start + np.flatnonzero(pc.equal(verdicts, KEPT).to_numpy()))
    return np.concatenate(found)


def parts_of(rows: np.ndarray, size: int = 16_384) -> Iterator[np.ndarray]:
    """Yield row numbers in blocks whose embeddings fit into memory."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]

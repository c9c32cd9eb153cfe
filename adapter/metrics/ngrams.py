"""CIDEr-D and BLEU on tokenised captions, counted once for all images in numpy.

Letters: ``n`` images, ``m`` references of an image (any number, at least one).
Both follow the COCO caption server as implemented in pycocoevalcap 1.2, quirks included: CIDEr-D's
length is the number of bigrams, and document frequency counts an image once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...pipeline.errors import UserError

Tokens = Sequence[str]
ORDERS = 4


def check_captions(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    """Raise :class:`UserError` unless there is one candidate and a reference for every image."""
    if len(candidates) != len(references):
        raise UserError(
            f"{len(candidates)} captions to score, but references for {len(references)} images."
        )
    if not candidates:
        raise UserError("There are no captions to score.")
    lonely = [index for index, group in enumerate(references) if not group]
    if lonely:
        raise UserError(
            f"{len(lonely)} images have no reference caption (the first is number {lonely[0]}).",
            "Leave images without captions out of the evaluation.",
        )


@dataclass
class _Counts:
    """Sparse n-gram counts: parallel arrays (document, n-gram id, order 0..3, count)."""

    document: np.ndarray
    ngram: np.ndarray
    order: np.ndarray
    count: np.ndarray
    bigrams: np.ndarray


def _count(documents: Sequence[Tokens]) -> tuple[_Counts, int]:
    """Count the 1- to 4-grams of all documents; ids are dense over all orders."""
    vocabulary: dict[str, int] = {}
    words = [vocabulary.setdefault(word, len(vocabulary)) for line in documents for word in line]
    tokens = np.asarray(words, np.int64)
    lengths = np.asarray([len(line) for line in documents], np.int64)
    document = np.repeat(np.arange(len(documents)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))  # tokens to line's end
    code, start, offset = tokens, np.arange(len(tokens)), 0
    parts = []
    for order in range(ORDERS):
        if order:
            keep = left[start] > order
            start = start[keep]
            code = code[keep] * len(vocabulary) + tokens[start + order]
        distinct, code = np.unique(code, return_inverse=True)
        where, times = np.unique(document[start] * len(distinct) + code, return_counts=True)
        width = max(len(distinct), 1)
        parts.append((where // width, where % width + offset, np.full(len(where), order), times))
        offset += len(distinct)
    document, ngram, order, count = (np.concatenate(column) for column in zip(*parts))
    return _Counts(document, ngram, order, count, np.maximum(lengths - 1, 0)), offset


def cider_d(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], sigma: float = 6.0
) -> np.ndarray:
    """Return CIDEr-D of each candidate ``(n,)``, in 0–10 (papers print the mean times 100).

    Vedantam et al. 2015, the ``-D`` variant of the COCO server: tf-idf vectors of 1- to 4-grams,
    candidate weights clipped to the reference's, a Gaussian penalty on the difference of length,
    mean over orders and references, times ten. ``idf`` comes from the references given here, so a
    score depends on the set; with one image every weight is ``log 1 = 0`` and so is the score.

    >>> refs = [[["a", "red", "box"]], [["a", "teal", "ball"]]]
    >>> cider_d([["a", "red", "box"], ["a", "cat"]], refs).round(4).tolist()
    [7.5, 0.0]

    (Three tokens have no 4-gram, so a perfect match gets three quarters of ten.)

    Raises:
        UserError: the numbers of images differ, or an image has no reference.
    """
    check_captions(candidates, references)
    n = len(candidates)
    group_sizes = np.asarray([len(group) for group in references])
    image_of = np.concatenate([np.arange(n), np.repeat(np.arange(n), group_sizes)])
    documents = [*candidates, *(line for group in references for line in group)]
    counts, size = _count(documents)

    image = image_of[counts.document]
    reference = counts.document >= n
    pairs = np.sort(image[reference] * size + counts.ngram[reference])
    pairs = pairs[np.diff(pairs, prepend=-1) != 0]  # np.unique hashes, which is slower here
    frequency = np.bincount(pairs % size, minlength=size) if size else np.zeros(0)
    idf = np.log(n) - np.log(np.maximum(frequency, 1.0))
    weight = counts.count * idf[counts.ngram]

    cell = counts.document * ORDERS + counts.order
    norm = np.sqrt(np.bincount(cell, weight**2, minlength=len(documents) * ORDERS))
    norm = norm.reshape(-1, ORDERS)

    # match every reference n-gram with the candidate's of its image
    key = image * size + counts.ngram
    own = np.argsort(key[~reference])
    candidate_key, candidate_weight = key[~reference][own], weight[~reference][own]
    place = np.searchsorted(candidate_key, key[reference])
    place = np.minimum(place, max(len(candidate_key) - 1, 0))
    if not len(candidate_key):
        return np.zeros(n)
    found = candidate_key[place] == key[reference]
    product = np.minimum(candidate_weight[place], weight[reference]) * weight[reference] * found
    similarity = np.bincount(cell[reference], product, minlength=len(documents) * ORDERS)
    similarity = similarity.reshape(-1, ORDERS)[n:]

    owner = image_of[n:]
    scale = norm[n:] * norm[owner]
    similarity = np.divide(similarity, scale, out=np.zeros_like(similarity), where=scale > 0)
    delta = counts.bigrams[owner] - counts.bigrams[n:]
    similarity *= np.exp(-(delta.astype(float) ** 2) / (2 * sigma**2))[:, None]
    return 10 * np.bincount(owner, similarity.mean(1), minlength=n) / group_sizes


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """Return corpus BLEU-1 to BLEU-4 in 0–1 (Papineni et al. 2002; closest reference length).

    >>> [round(b, 4) for b in bleu([["a", "red", "box"]], [[["a", "red", "ball"]]])][:2]
    [0.6667, 0.5774]

    Raises:
        UserError: the numbers of images differ, or an image has no reference.
    """
    check_captions(candidates, references)
    correct, guessed = np.zeros(ORDERS), np.zeros(ORDERS)
    length = closest = 0
    for candidate, group in zip(candidates, references):
        size = len(candidate)
        length += size
        closest += min((abs(len(line) - size), len(line)) for line in group)[1]
        for order in range(1, ORDERS + 1):
            guessed[order - 1] += max(size - order + 1, 0)
            wanted: Counter[tuple[str, ...]] = Counter()
            for line in group:
                wanted |= _ngrams(line, order)
            correct[order - 1] += sum((_ngrams(candidate, order) & wanted).values())
    # the tiny terms are the reference implementation's: no n-gram at all scores 0, not an error
    precision = np.cumprod((correct + 1e-15) / (guessed + 1e-9)) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (length + 1e-15) / (closest + 1e-9)
    return [float(p) for p in precision * (np.exp(1 - 1 / ratio) if ratio < 1 else 1.0)]


def _ngrams(line: Tokens, order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(line[shift:] for shift in range(order))))


def rouge_l(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], beta: float = 1.2
) -> np.ndarray:
    """Return ROUGE-L of each candidate ``(n,)`` in 0–1 (Lin 2004, as the COCO server has it).

    Precision and recall of the longest common subsequence, the best of each over the references.

    >>> rouge_l([["a", "red", "box"]], [[["a", "box"]]]).round(4).tolist()
    [0.8299]

    Raises:
        UserError: the numbers of images differ, or an image has no reference.
    """
    check_captions(candidates, references)
    scores = np.zeros(len(candidates))
    for index, (candidate, group) in enumerate(zip(candidates, references)):
        if not candidate:
            continue
        common = [common_subsequence(candidate, line) for line in group]
        precision = max(common) / len(candidate)
        recall = max(size / max(len(line), 1) for size, line in zip(common, group))
        if precision and recall:
            scores[index] = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    return scores


def common_subsequence(left: Tokens, right: Tokens) -> int:
    """Return the length of the longest common subsequence, one bit of an integer a token.

    Hyyrö 2004: the row of the dynamic program is kept as the bits where it does not increase.
    """
    positions: dict[str, int] = {}
    for place, token in enumerate(left):
        positions[token] = positions.get(token, 0) | 1 << place
    full = (1 << len(left)) - 1
    row = full
    for token in right:
        match = row & positions.get(token, 0)
        row = (row + match) | (row - match)
    return bin(~row & full).count("1")

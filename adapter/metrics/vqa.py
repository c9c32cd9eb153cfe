"""Official VQA accuracy, exact accuracy, and the files of the VQA challenge.

The rules are those of the challenge's own evaluation (Antol et al. 2015; GT-Vision-Lab/VQA), its
peculiarities included, since published figures depend on them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...pipeline.errors import UserError
from ...pipeline.files import write_json

_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten".split()  # noqa: SIM905
    )
} | {"none": "0"}
_ARTICLES = frozenset(["a", "an", "the"])
# A word of this list is restored when exactly one of its apostrophes is missing ("didnt",
# "couldnt've"), which is what the official table of 120 pairs amounts to.
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905
_CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTED
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_POINT = re.compile(r"\.(?!\d)")
_THOUSANDS = re.compile(r"\d,\d")
_MOST_POINTS = 32  # the official code passes re.UNICODE (32) where re.sub takes its count


@lru_cache(maxsize=1 << 20)
def normalise_answer(answer: str) -> str:
    """Return an answer as the official evaluation compares it.

    Punctuation goes (replaced by nothing next to a space or where a number has a comma, else by a
    space), case, articles, number words up to ten, missing apostrophes.

    >>> normalise_answer("The two dogs, didnt bark.")
    "2 dogs didn't bark"
    """
    return _words(_punctuation(_clean(answer)))


def _clean(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _punctuation(answer: str) -> str:
    text = answer
    grouped = _THOUSANDS.search(answer) is not None
    for mark in _PUNCTUATION:
        if mark in answer:
            spaced = f"{mark} " in answer or f" {mark}" in answer
            text = text.replace(mark, "" if spaced or grouped else " ")
    return _POINT.sub("", text, count=_MOST_POINTS)


def _words(answer: str) -> str:
    words = (_NUMBERS.get(word, word) for word in answer.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_score(prediction: str, answers: Sequence[str]) -> float:
    """Return the accuracy of one prediction in 0–1 given the annotators' answers, usually ten.

    Mean over annotators of ``min(1, matches among the others / 3)``. Answers are normalised only
    where annotators disagree; else prediction and answer are compared as written, without case.

    >>> vqa_score("Two.", ["2", "2", "two"] + ["3"] * 7)
    0.9

    (Three agree with "2": for each of them two others do, 2/3; for the other seven, three do.)

    Raises:
        UserError: there are no answers.
    """
    if not answers:
        raise UserError("A question without answers cannot be scored.")
    given = [_clean(answer) for answer in answers]
    wanted = _clean(prediction)
    if len(set(given)) > 1:
        given = [normalise_answer(answer) for answer in given]
        wanted = normalise_answer(wanted)
    matches = sum(answer.lower() == wanted.lower() for answer in given)
    total = len(given)
    agreeing = matches * min(1.0, (matches - 1) / 3) if matches else 0.0
    return (agreeing + (total - matches) * min(1.0, matches / 3)) / total


def exact_score(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the normalised prediction equals a normalised answer, else 0."""
    wanted = normalise_answer(prediction)
    return float(any(wanted == normalise_answer(answer) for answer in answers))


def vqa_scores(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> np.ndarray:
    """Return :func:`vqa_score` of every question ``(n,)``.

    Raises:
        UserError: the numbers differ, or a question has no answers.
    """
    if len(predictions) != len(answers):
        raise UserError(f"{len(predictions)} predictions for {len(answers)} questions.")
    return np.array([vqa_score(p, a) for p, a in zip(predictions, answers)])


def mean_by(keys: Sequence[str], scores: np.ndarray) -> dict[str, float]:
    """Return the mean score in percent of each key: per question type, per answer type."""
    groups: dict[str, list[float]] = defaultdict(list)
    for key, score in zip(keys, scores):
        groups[key].append(float(score))
    return {key: 100 * sum(group) / len(group) for key, group in sorted(groups.items())}


def write_submission(path: str | Path, question_ids: Iterable[str], answers: Iterable[str]) -> None:
    """Write predictions in the challenge's format: ``[{"question_id": 1, "answer": "yes"}]``.

    Ids that are whole numbers are written as numbers, as the evaluation server wants them.
    """
    rows = [
        {"question_id": int(key) if key.isdecimal() else key, "answer": answer}
        for key, answer in zip(question_ids, answers)
    ]
    write_json(path, rows)

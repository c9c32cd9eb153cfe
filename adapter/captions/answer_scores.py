"""What an answer is worth: accuracy, WUPS, and the most frequent answer as the baseline."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..metrics.vqa import exact_score, mean_by, vqa_score
from ..metrics.wups import WordNet, wups

if TYPE_CHECKING:
    from ...pipeline.datasets import Question

BASELINE = "most frequent answer per question type"


def usual_answer(answers: Sequence[str]) -> str:
    """Return the answer that most annotators gave, the first such."""
    return Counter(answers).most_common(1)[0][0]


def most_frequent(train: Sequence[Question], test: Sequence[Question]) -> list[str]:
    """Return for each test question the most frequent training answer of its question type.

    Types never seen in training, and data without types, get the most frequent answer of all.
    """
    by_type: dict[str, Counter[str]] = defaultdict(Counter)
    for question in train:
        by_type[question.question_type][usual_answer(question.answers)] += 1
    everything = sum(by_type.values(), Counter())
    return [
        by_type.get(question.question_type, everything).most_common(1)[0][0] for question in test
    ]


def score_answer(prediction: str, answers: Sequence[str]) -> float:
    """Return official accuracy where there are several annotators, exact accuracy for one."""
    return vqa_score(prediction, answers) if len(answers) > 1 else exact_score(prediction, answers)


class Scorer:
    """The columns of the table for one list of answers."""

    def __init__(self, test: Sequence[Question], wordnet: WordNet | None) -> None:
        self.test = test
        self.single = all(len(question.answers) == 1 for question in test)
        # WUPS is DAQUAR's: answers are words of WordNet, or lists of them
        self.wordnet = wordnet if self.single else None
        self.groups = {
            "answer": [question.answer_type or "all" for question in test],
            "question": [question.question_type or "all" for question in test],
        }
        self.notes = []
        if self.single and wordnet is None:
            self.notes.append(
                "no WUPS: WordNet's files are not here (Debian's wordnet-base, or AAPE_WORDNET)"
            )

    def each(self, answers: Sequence[str]) -> np.ndarray:
        return np.array([score_answer(a, q.answers) for a, q in zip(answers, self.test)])

    def row(self, answers: Sequence[str], ranked: Sequence[str] | None) -> dict[str, float]:
        each = self.each(answers)
        row = {"accuracy": 100 * float(each.mean())}
        if not self.single:  # as the official evaluation reports it: yes/no, number, other
            by_type = mean_by(self.groups["answer"], each)
            row |= {name: value for name, value in by_type.items() if len(by_type) > 1}
        if ranked is not None:
            row["closed-list accuracy"] = 100 * float(self.each(ranked).mean())
        if self.wordnet is not None:
            same = self.wordnet.word_similarity
            for threshold in (0.9, 0.0):
                scores = [
                    wups(a.lower(), q.answers[0].lower(), same, threshold)
                    for a, q in zip(answers, self.test)
                ]
                row[f"WUPS@{threshold}"] = 100 * float(np.mean(scores))
        return row


def accuracy_note(test: Sequence[Question]) -> str:
    if all(len(question.answers) == 1 for question in test):
        return "accuracy: the normalised answer is the given one"
    return "accuracy: the official VQA accuracy, against all annotators"

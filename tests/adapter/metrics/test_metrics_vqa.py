"""VQA accuracy on a table of known cases, WUPS on a small WordNet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aape.adapter.metrics.vqa import (
    exact_score,
    mean_by,
    normalise_answer,
    vqa_score,
    vqa_scores,
    write_submission,
)
from aape.adapter.metrics.wups import WordNet, wups
from aape.pipeline.errors import UserError


@pytest.mark.parametrize(
    ("answer", "normal"),
    [  # each line was produced by the official evaluation code
        ("Yes.", "yes"),
        ("the  Dog", "dog"),
        ("two", "2"),
        ("none", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("youd've", "you'd've"),
        ("im", "im"),  # the official table has "Im", which lower-casing never meets
        ("somebody'd", "somebodyd"),
        ("1,000", "1000"),
        ("1,000 / 2", "1000 2"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("t-shirt", "t shirt"),
        ("dog,cat", "dog cat"),
        ("dog, cat", "dog cat"),
        ("3.5", "3.5"),
        ("u.s.", "us"),
        ("10:30", "10:30"),
        ("it's", "it's"),
        ("$5", "$5"),
        ("a an the", ""),
        ("wi fi\n", "wi fi"),
        ("(red)", "red"),
        ("café?", "café"),
    ],
)
def test_normalisation(answer: str, normal: str) -> None:
    assert normalise_answer(answer) == normal


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("yes", ["yes"] * 10, 1.0),
        ("YES", ["yes"] * 10, 1.0),
        ("yes.", ["yes"] * 10, 0.0),  # unanimous answers are compared as written
        ("yes.", ["yes"] * 9 + ["no"], 1.0),
        ("no", ["yes"] * 9 + ["no"], 0.3),
        ("two", ["2"] * 2 + ["3"] * 8, 0.6),  # 2 × min(1, 1/3) + 8 × min(1, 2/3), over 10
        ("2", ["two"] * 3 + ["3"] * 7, 0.9),
        ("a dog", ["dog"] * 4 + ["the dog"] * 6, 1.0),
        ("cat", ["dog"] * 10, 0.0),
        ("", ["dog"] * 5 + ["cat"] * 5, 0.0),
        ("red", ["red"], 0.0),  # the official rule needs other annotators
    ],
)
def test_accuracy(prediction: str, answers: list[str], score: float) -> None:
    assert vqa_score(prediction, answers) == pytest.approx(score)


def test_exact_and_grouped_accuracy() -> None:
    assert exact_score("The Two", ["2", "3"]) == 1
    assert exact_score("two dogs", ["2"]) == 0
    assert mean_by(["b", "a", "b"], np.array([1.0, 0.5, 0.0])) == {"a": 50.0, "b": 50.0}


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without answers"):
        vqa_score("yes", [])
    with pytest.raises(UserError, match="2 predictions for 1"):
        vqa_scores(["a", "b"], [["a"]])


def test_submission_format(tmp_path: Path) -> None:
    write_submission(tmp_path / "out.json", ["262148000", "q7"], ["yes", "café"])
    rows = json.loads((tmp_path / "out.json").read_text())
    assert rows == [
        {"question_id": 262148000, "answer": "yes"},
        {"question_id": "q7", "answer": "café"},
    ]


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    """Five nouns in WordNet's file format: entity > furniture > (chair, table), entity > dog."""
    senses = {1: ("entity", []), 2: ("furniture", [1]), 3: ("chair", [2]), 4: ("table", [2])}
    senses |= {5: ("dog", [1])}
    data, index = ["  1 licence"], ["  1 licence"]
    for offset, (word, parents) in senses.items():
        pointers = "".join(f" @ {parent:08d} n 0000" for parent in parents)
        data.append(f"{offset:08d} 03 n 01 {word} 0 {len(parents):03d}{pointers} | a gloss")
        index.append(f"{word} n 1 1 @ 1 0 {offset:08d}")
    (tmp_path / "data.noun").write_text("\n".join(data) + "\n")
    (tmp_path / "index.noun").write_text("\n".join(index) + "\n")
    (tmp_path / "noun.exc").write_text("doggies dog\n")
    return WordNet(tmp_path)


def test_wu_palmer_by_hand(wordnet: WordNet) -> None:
    # furniture has depth 2 (counting the root as 1); chair and table are one step below
    assert wordnet.word_similarity("chair", "table") == pytest.approx(2 * 2 / (1 + 1 + 4))
    assert wordnet.word_similarity("chair", "dog") == pytest.approx(2 * 1 / (2 + 1 + 2))
    assert wordnet.word_similarity("chairs", "chair") == 1
    assert wordnet.word_similarity("doggies", "dog") == 1
    assert wordnet.word_similarity("chair", "unheard_of") == 0


def test_wups_by_hand(wordnet: WordNet) -> None:
    same = wordnet.word_similarity
    assert wups("chair", "chair", same, 0.9) == 1
    assert wups("tv_stand", "tv_stand", same, 0.9) == 1
    assert wups("chair", "table", same, 0.9) == pytest.approx(0.1 * 2 / 3)
    assert wups("chair", "table", same, 0.0) == pytest.approx(2 / 3)
    # sets: "chair" is right, "dog" is 0.4 away from its best partner
    assert wups("chair, dog", "chair", same, 0.0) == pytest.approx(0.4)
    assert wups("chair", "chair, table", same, 0.9) == pytest.approx(0.1 * 2 / 3)
    assert wups("", "chair", same, 0.0) == wups(" , ", "chair", same, 0.0) == 0  # no answer


def test_wordnet_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no WordNet file data\.noun"):
        WordNet(tmp_path)
    monkeypatch.setenv("AAPE_WORDNET", str(tmp_path))
    with pytest.raises(UserError, match="wordnet-base"):
        WordNet.find()

"""Contrasts to the classes that one is taken for, and other names of classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder, PixelEncoder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from toy_words import toy_words

from aape.pipeline.bank import PromptBank
from aape.pipeline.bank.schema import CONTRAST_PREFIX, NAME_QUERY
from aape.pipeline.bank.statistics import bank_statistics
from aape.pipeline.config import ContrastConfig, GenerationConfig
from aape.pipeline.datasets import open_dataset
from aape.pipeline.datasets.add import add_dataset
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.contrast import (
    _training_items,
    alike_classes,
    contrast_requests,
    most_alike,
)
from aape.pipeline.prompts.engines.base import Answer, ClosingEngine
from aape.pipeline.prompts.generate import generate_prompts
from aape.pipeline.prompts.other_names import judge_names, name_in
from aape.pipeline.prompts.requests import ModelIdentity, Request
from aape.pipeline.prompts.verdicts import ClassNames

MODEL = ModelIdentity("m", "r", "")
NAMES = ["barn owl", "{cat}", "old oak", "Barn Owl"]
WORDS = GenerationConfig.model_validate(
    {
        "samples": 2,
        "contrast": {"by": "texts", "others": 1},
        "other_names": 3,
        "top_up": {"min_kept": 0},
    }
)


class TalkingEngine(ClosingEngine):
    """Names another class in every second contrast; other names come from a list."""

    name, version = "fake", "1"

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Answer]]:
        for request in requests:
            self.asked.append(request)
            yield [Answer(request.key, self._text(request), "stop", 9, self.name, self.version, "")]

    def _text(self, request: Request) -> str:
        if request.kind == "name":
            return ['Also known as "night bird".', "Old oak", "It is a bird that hunts by night."][
                request.sample_index
            ]
        if request.kind == "contrast" and request.sample_index:
            return f"A {request.class_name} is smaller than a barn owl or an old oak."
        return f"The {request.class_name} shows mark {request.seed} on its side."


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))


def test_contrasts_are_asked_of_the_nearest_class() -> None:
    likeness = np.array(
        [[1, 0.2, 0.1, 0.9], [0.2, 1, 0.3, 0.2], [0.1, 0.3, 1, 0], [0.9, 0.2, 0, 1]]
    )
    pairs = most_alike(likeness, NAMES, 1)
    assert pairs == [(0, 1), (1, 2), (2, 1), (3, 1)]  # its twin of the same name is no other class
    requests = contrast_requests(toy_words(NAMES), WORDS, MODEL, pairs)
    first, second = requests[0], requests[2]
    assert len(requests) == 8
    assert first.query_id == f"{CONTRAST_PREFIX}1"
    assert "a barn owl have" in first.prompt
    assert "a {cat}?" in first.prompt  # braces of a name are data
    assert "{class}" in first.query_template
    assert "a {cat} have" in second.prompt
    assert "an old oak?" in second.prompt
    assert len({request.key for request in requests}) == 8


def test_texts_tell_what_is_alike_where_there_are_no_photos() -> None:
    manifest = toy_words(NAMES)
    by_texts = alike_classes(manifest, FakeEncoder(), ContrastConfig(by="texts", others=2))
    assert by_texts == alike_classes(manifest, FakeEncoder(), ContrastConfig(by="auto", others=2))
    assert len(by_texts) == 8


def test_photos_tell_what_is_taken_for_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    for name in ("ant", "bee", "cow", "dog"):
        (tmp_path / "zoo" / "train" / name).mkdir(parents=True)
        for i in range(10 if name == "ant" else 7):
            picture = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            picture.save(tmp_path / "zoo" / "train" / name / f"{i}.png")
    manifest = add_dataset(tmp_path / "zoo", "zoo").manifest
    encoder = PixelEncoder()
    encoder.logit_scale = 5.0
    likeness = np.zeros((4, 4))
    items = open_dataset("zoo").items("train")
    texts = encoder.encode_text(
        [manifest.templates[0].replace("{}", n) for n in manifest.class_names]
    )
    for a in range(4):
        rows = []
        for item in (item for item in items if item.label == a):
            with Image.open(item.path) as picture:
                x = encoder.encode_images(encoder.transform(picture)[None])[0].numpy()
            odds = [np.exp(5.0 * float(x @ text)) for text in texts]
            rows.append([one / sum(odds) for one in odds])
        for b in range(4):
            mean = sum(row[b] for row in rows) / len(rows)
            likeness[a, b] += mean
            likeness[b, a] += mean
    asked = ContrastConfig(by="photos", others=2, photos=99)
    assert alike_classes(manifest, encoder, asked) == most_alike(likeness, manifest.class_names, 2)
    assert alike_classes(manifest, encoder, asked) != alike_classes(
        manifest, encoder, ContrastConfig(by="texts", others=2)
    )
    few = _training_items(manifest, 2)
    assert sorted(item.label for item in few) == [0, 0, 1, 1, 2, 2, 3, 3]
    # another manifest of this name has other labels
    other = manifest.model_copy(update={"classes": manifest.classes[:3]})
    with pytest.raises(UserError, match=r"no training photos of 'zoo' here.*--contrast texts"):
        alike_classes(other, encoder, asked)


def test_a_bank_with_contrasts_and_names(tmp_path: Path) -> None:
    path, engine = tmp_path / "b.bank.parquet", TalkingEngine()
    manifest = toy_words(NAMES)

    def make(config: GenerationConfig, engine: TalkingEngine) -> PromptBank:
        options = {"encoder": FakeEncoder(), "engine": engine}
        return PromptBank.open(generate_prompts(manifest, path, config, **options))  # pyright: ignore

    plain = WORDS.model_copy(update={"contrast": ContrastConfig(), "other_names": 0})
    make(plain, engine)
    before = len(engine.asked)
    bank = make(WORDS, engine)
    # descriptions are not asked again
    assert len(engine.asked) == before + 4 * 2 + 4 * 3
    rows = bank.table.to_pylist()
    kinds = {row["query_id"] for row in rows if row["query_id"].startswith(CONTRAST_PREFIX)}
    assert kinds
    contrasts = [row for row in rows if row["query_id"] in kinds]
    verdicts = {row["sample_index"]: set() for row in contrasts}
    for row in contrasts:
        verdicts[row["sample_index"]].add(row["verdict"])
    assert verdicts == {0: {"kept"}, 1: {"other class"}}
    names = [row for row in rows if row["query_id"] == NAME_QUERY and row["class_id"] == 0]
    assert [(row["text"], row["verdict"]) for row in names] == [
        ("night bird", "other name"), ("Old oak", "other class"), ("", "fragment"),
    ]  # fmt: skip
    # a name is no description: readers of kept prompts do not meet it
    assert "night bird" not in bank.prompts(0)
    assert bank.other_names()[0] == ["night bird"]
    statistics = bank_statistics(bank)
    assert statistics.kinds == {"description": 40, "contrast": 8, "other name": 12}
    again = TalkingEngine()
    make(WORDS, again)
    assert again.asked == []


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("Screech owl.", "Screech owl"),
        ('A barn owl is also known as a "church owl" in Britain.', "church owl"),
        ("Another common name for a barn owl is the ghost owl.", "ghost owl"),
        ("Answer: ghost owl", "ghost owl"),
        ("**Ghost Owl**", "Ghost Owl"),
        ("It lives in barns and hunts at night over the fields.", ""),
        ("I'm sorry, I do not know.", ""),
        ("{class} <b>owl</b>", ""),
        ("owl\x1b[31m", ""),
        ("", ""),
        ("T-shirt", "T-shirt"),
        ("A perfect shoe is a shoe.", ""),  # of SmolLM2-135M
        ("?!", ""),
    ],
)
def test_the_name_in_an_answer(answer: str, name: str) -> None:
    assert name_in(answer) == name


@given(st.text(max_size=400))
def test_any_answer_gives_a_plain_name_or_none(answer: str) -> None:
    name = name_in(answer)
    assert len(name) <= 60
    assert name.isprintable()


def test_names_are_distinct_and_of_no_other_class() -> None:
    classes = ClassNames(["cat", "dog", "cat"])
    texts = ["Cats", "kitty", "Kitty", "dog", "dog food", "house cat", ""]
    assert judge_names(texts, 0, classes) == [
        "duplicate", "other name", "duplicate", "other class", "other class", "other name",
        "fragment",
    ]  # fmt: skip

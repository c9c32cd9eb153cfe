"""Queries that a language model writes by itself: what is taken of them, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fakes import FakeEncoder
from hypothesis import given
from hypothesis import strategies as st
from toy_words import toy_words

from aape.pipeline.bank import PromptBank
from aape.pipeline.bank.card import bank_card
from aape.pipeline.bank.statistics import bank_statistics
from aape.pipeline.commands.print_bank import print_statistics
from aape.pipeline.config import GenerationConfig
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.engines.base import Answer, ClosingEngine, schema_of
from aape.pipeline.prompts.generate import generate_prompts
from aape.pipeline.prompts.own_queries import read_own_queries, valid_query
from aape.pipeline.prompts.plan import plan
from aape.pipeline.prompts.requests import Request
from aape.pipeline.prompts.verdicts import ClassNames

NAMES = ClassNames(["barn owl", "cat", "old oak"])
CONFIG = GenerationConfig.model_validate(
    {
        "samples": 1,
        "about": "photos of animals and trees at dusk",
        "own_queries": {"answers": 2, "least": 2, "most": 3},
        "top_up": {"min_kept": 0},
    }
)


class WritingEngine(ClosingEngine):
    """Answers to requests for queries come from a list; descriptions repeat their question."""

    name, version = "fake", "1"

    def __init__(self, *written: str, fail_after: int = -1) -> None:
        self.written, self.fail_after = list(written), fail_after
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Answer]]:
        for request in requests:
            if 0 <= self.fail_after <= len(self.asked):
                raise UserError("The fake engine fails.")
            self.asked.append(request)
            text = f"A {request.class_name} is seen when one asks: {request.key}."
            if request.kind == "queries":
                text = self.written[request.sample_index % len(self.written)]
            yield [Answer(request.key, text, "stop", 9, self.name, self.version, "")]


def make(path: Path, engine: WritingEngine, config: GenerationConfig = CONFIG) -> PromptBank:
    manifest = toy_words(list(NAMES.names))
    return PromptBank.open(
        generate_prompts(manifest, path, config, encoder=FakeEncoder(), engine=engine)  # pyright: ignore
    )


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("line", "query"),
    [
        ("1. What colour is a {class} at dusk?", "What colour is {article} {class} at dusk?"),
        ("- How large are {class}s beside people?", "How large are {plural} beside people?"),
        ('"Which parts of the <class name> can be seen?"',
         "Which parts of the {class} can be seen?"),
        ("Describe the wings, and the shape of a {class} at dusk.",
         "Describe the wings, and the shape of {article} {class} at dusk."),
        ("Imagine a {class} at dusk. What do you see?",
         "Imagine {article} {class} at dusk. What do you see?"),
        # what SmolLM2-135M wrote
        ("The {class} woman is wearing a great bag?", None),
        ("What makes {class}-14-year-old homes so much at home?", None),
        ("What does they have in a day? {class}", None),
        ("What colour is it at dusk, seen from near?", None),  # no class
        ("How does a {class} differ from another {class}?", None),  # twice
        ("How large is a {class} beside a barn owl?", None),  # names a class
        ("How {0.__class__} looks a {class} in the dark?", None),  # a format string
        ("How looks a {class} in \x1b[31mthe dark of night?", None),  # steers a terminal
        ("How looks a %s beside a {class} in the dark?", None),
        ("See https://example.org for what a {class} looks like", None),
        ("Colour {class}?", None),  # too short
        ("Sure, here are ten questions about the look of a {class}:", None),
        ("I'm sorry, I cannot ask what a {class} looks like.", None),
        ("What does the front door of a {class} look like?", None),  # the example itself
        ("What colour " + "really " * 40 + "is a {class}?", None),  # too long
        ("What does a {class} {article} look like to you?", None),
        ("Describe \u202ea {class} seen from far away.", None),  # turns the line around
    ],
)  # fmt: skip
def test_what_is_a_query(line: str, query: str | None) -> None:
    assert valid_query(line, NAMES) == query


@given(st.text(max_size=300), st.booleans())
def test_any_answer_is_read(text: str, finished: bool) -> None:
    queries, _ = read_own_queries(
        [(text, finished), (f"{text} {{class}} {text}", finished)], NAMES, 5
    )
    for query in queries:
        assert len(query.text) < 250
        assert query.text.isprintable()
        assert query.text.count("{class}") + query.text.count("{plural}") == 1


def test_queries_are_distinct_bounded_and_in_order() -> None:
    first = (
        "1. Which colours has a {class}?\n2. which colours has a {class}\n3. How big is a {class}?"
    )
    second = json.dumps({"queries": ["What shape has the {class} there?", 7, "cut {class"]})
    queries, refused = read_own_queries([(first, True), (second, True)], NAMES, 9)
    assert [query.text for query in queries] == [
        "Which colours has {article} {class}?",
        "How big is {article} {class}?",
        "What shape has the {class} there?",
    ]
    assert [query.id for query in queries] == ["own-1", "own-2", "own-3"]
    assert refused == 1
    assert len(read_own_queries([(first, True), (second, True)], NAMES, 2)[0]) == 2
    # the last line of an answer that was cut off is left out, unless it is whole
    cut = "Which colours has a {class}?\nHow big is a {class} when it"
    assert len(read_own_queries([(cut, False)], NAMES, 9)[0]) == 1
    assert len(read_own_queries([(cut, True)], NAMES, 9)[0]) == 2
    # a structured answer that was cut off gives its whole strings
    half = '{"queries": ["Which colours has a {class}?", "How big is a {cla'
    assert len(read_own_queries([(half, False)], NAMES, 9)[0]) == 1


WRITTEN = (
    "Which colours has a {class} at dusk?\nHow large is the {class} beside others?",
    "What is the outline of a {class} at night?\nWhat surrounds a {class} at dusk?",
)


def test_a_bank_by_its_own_queries(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    engine = WritingEngine(*WRITTEN)
    bank = make(tmp_path / "b.bank.parquet", engine)
    assert [request.kind for request in engine.asked] == ["queries"] * 2 + ["description"] * 9
    assert "dusk" in engine.asked[0].prompt
    assert schema_of(engine.asked[0])[0] == "queries"
    assert "a barn owl at dusk" in engine.asked[2].prompt
    own = bank.metadata.own_queries
    assert own.about == CONFIG.about
    assert own.queries == [
        "Which colours has {article} {class} at dusk?",
        "How large is the {class} beside others?",
        "What is the outline of {article} {class} at night?",
    ]
    assert "wrote 3 queries" in capsys.readouterr().err
    assert set(bank.table.column("query_id").to_pylist()) == {"own-1", "own-2", "own-3"}
    statistics = bank_statistics(bank)
    assert (statistics.about, statistics.own_queries) == (own.about, own.queries)
    assert "photos of animals and trees at dusk" in bank_card(bank)
    print_statistics(statistics, every_class=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Queries that the language model wrote, for: photos of animals" in shown
    assert "What is the outline of {article} {class} at night?" in shown
    hostile = statistics.model_copy(update={"about": "\x1b[31m", "own_queries": ["\x1b[2J"]})
    print_statistics(hostile, every_class=False)
    assert "\x1b" not in capsys.readouterr().out


def test_a_second_run_asks_nothing_and_a_killed_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "b.bank.parquet"
    for fail_after in (1, 4):
        with pytest.raises(UserError, match="fails"):
            make(path, WritingEngine(*WRITTEN, fail_after=fail_after))
    last = WritingEngine(*WRITTEN)
    bank = make(path, last)
    assert len(last.asked) == 11 - 1 - 4
    whole = make(tmp_path / "whole.bank.parquet", WritingEngine(*WRITTEN))
    assert bank.content_hash == whole.content_hash
    before = path.stat().st_mtime_ns
    again = WritingEngine("nothing")
    make(path, again)
    assert again.asked == []
    assert path.stat().st_mtime_ns == before


def test_too_few_valid_queries_are_replaced(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    engine = WritingEngine("I'm sorry, I cannot.", "What colour is a {class} at dusk?")
    bank = make(tmp_path / "b.bank.parquet", engine)
    assert bank.metadata.own_queries.queries == []
    assert "wrote 1 valid queries for toy" in capsys.readouterr().err
    assert "describe" in bank.table.column("query_id").to_pylist()


def test_words_that_do_not_go_together(tmp_path: Path) -> None:
    file = tmp_path / "q.txt"
    file.write_text("What does a {class} look like?\n")
    with pytest.raises(UserError, match="From what"):
        plan(["pets"], queries="auto")
    with pytest.raises(UserError, match="exclude"):
        plan(["pets"], queries=file, options={"about": "photos of pets"})
    with pytest.raises(UserError, match="none is asked"):
        plan(["pets"], queries="auto", control="waffle", options={"about": "photos of pets"})
    assert plan(["pets"], queries="auto", options={"about": "photos of pets"}).queries is None
    with pytest.raises(UserError, match="printed"):
        make(tmp_path / "b.bank.parquet", WritingEngine("x"),
             CONFIG.model_copy(update={"about": "owls\x1b[31m"}))  # fmt: skip

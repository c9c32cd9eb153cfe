"""Queries, articles, keys and seeds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aape.pipeline.config import GenerationConfig
from aape.pipeline.datasets.manifest import DEFAULT_QUERIES, Manifest, Query
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.english import article, plural
from aape.pipeline.prompts.requests import (
    ModelIdentity,
    build_requests,
    fill_query,
    read_queries,
    sample_seed,
)

MODEL = ModelIdentity("a-model", "r1", "")


def manifest(*names: str, category: str = "") -> Manifest:
    return Manifest.parse(
        {
            "name": "toy",
            "title": "Toy",
            "tasks": ["classification"],
            "category": category,
            "classes": list(names),
            "layouts": [{"kind": "image_folders"}],
            "licence": "none",
        },
        "toy",
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2012 Audi TT", "a"), ("Audi TT", "an"), ("BMW X5", "a"), ("MG", "an"), ("F-16A/B", "an"),
        ("SR-20", "an"), ("DHC-1", "a"), ("FIAT 500", "a"), ("MINI Cooper", "a"), ("unicycle", "a"),
        ("umbrella", "an"), ("uninhabited island", "an"), ("European robin", "a"), ("hour", "an"),
        ("8-ball", "an"), ("1800 coach", "a"), ("18-wheeler", "an"), ("one-way street", "a"),
        ("A300B4", "an"), ("747-200", "a"), ("“old” barn", "an"), ("🙂", "a"), ("eel", "an"),
        ("ukulele", "a"), ("yak", "a"), ("X-ray fish", "an"), ("SUV", "an"), ("honeycomb", "a"),
    ],
)  # fmt: skip
def test_article_follows_the_sound(name: str, expected: str) -> None:
    assert article(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fox", "foxes"), ("daisy", "daisies"), ("blue jay", "blue jays"), ("leaf", "leaves"),
        ("bird of paradise", "birds of paradise"), ("Boeing 747", "Boeing 747s"),
        ("goldfish", "goldfishes"), ("fish", "fish"), ("glasses", "glasses"), ("iris", "irises"),
        ("Fireman", "Firemans"), ("man", "men"), ("of", "ofs"), ("???", "???"),
    ],
)  # fmt: skip
def test_plural(name: str, expected: str) -> None:
    assert plural(name) == expected


@given(st.text(min_size=1, max_size=300))
def test_any_class_name_is_data(name: str) -> None:
    assert article(name) in ("a", "an")
    assert isinstance(plural(name), str)
    assert fill_query("What does {article} {class} look like?", name).count(name) >= 1
    filled = fill_query("<{class}|{class}>", name)
    assert filled == f"<{name}|{name}>"


def test_category_slot_goes_with_its_commas() -> None:
    text = "Describe {article} {class}, {category}, on {plural}."
    assert fill_query(text, "owl", "a type of bird") == "Describe an owl, a type of bird, on owls."
    assert fill_query(text, "owl") == "Describe an owl on owls."


@pytest.mark.parametrize("text", ["Describe it", "What is {colour} {class}?", "{article} thing"])
def test_wrong_queries_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="query"):
        fill_query(text, "owl")


def test_one_request_for_each_class_sample_and_query() -> None:
    config = GenerationConfig(samples=3)
    requests = build_requests(manifest("owl", "owl", "cat"), config, MODEL)
    assert len(requests) == 3 * 3 * len(DEFAULT_QUERIES)
    assert len({request.key for request in requests}) == len(requests)
    assert len({request.seed for request in requests}) == len(requests)
    assert all(0 <= request.seed < 2**31 for request in requests)
    # two classes of one name are asked for separately
    assert [request.class_id for request in requests] == sorted(r.class_id for r in requests)


def test_key_changes_with_what_decides_the_text_and_nothing_else() -> None:
    names, config = manifest("owl"), GenerationConfig(samples=1)

    def keys(data: Manifest, settings: GenerationConfig, model: ModelIdentity = MODEL) -> set[str]:
        return {request.key for request in build_requests(data, settings, model)}

    same = keys(names, config)
    assert keys(names, config.model_copy(update={"batch_size": 7, "engine": "vllm"})) == same
    assert keys(names.model_copy(update={"licence": "other", "templates": ["{}"]}), config) == same
    assert keys(names, config, ModelIdentity("a-model", "r1", "/elsewhere")) == same
    assert keys(names, config.model_copy(update={"samples": 5})) > same
    changed = [
        keys(names, config.model_copy(update={"seed": 1})),
        keys(names, config.model_copy(update={"instruction": ""})),
        keys(names, config.model_copy(update={"structured_output": True})),
        keys(names, config.model_copy(update={"chat_template_kwargs": {}})),
        keys(names, GenerationConfig(samples=1, sampling={"temperature": 0.5})),  # pyright: ignore
        keys(names, config, ModelIdentity("a-model", "r2", "")),
        keys(names, config, ModelIdentity("b-model", "r1", "")),
        keys(manifest("owls"), config),
        keys(manifest("cat", "owl"), config),
        keys(manifest("owl", category="a bird"), config.model_copy(update={"samples": 1}))
        if any("{category}" in query.text for query in DEFAULT_QUERIES)
        else set(),
    ]
    for other in changed:
        assert not same & other


def test_a_form_that_is_forced_is_also_asked_for() -> None:
    [plain, *_] = build_requests(manifest("owl"), GenerationConfig(samples=1), MODEL)
    config = GenerationConfig(samples=1, structured_output=True)
    [formed, *_] = build_requests(manifest("owl"), config, MODEL)
    assert formed.prompt == f'{plain.prompt} Answer as JSON with one field, "description".'


def test_later_samples_leave_earlier_ones_alone() -> None:
    config = GenerationConfig(samples=2)
    first = build_requests(manifest("owl"), config, MODEL)
    more = build_requests(manifest("owl"), config, MODEL, samples=[2, 3], class_ids=[0])
    longer = build_requests(manifest("owl"), GenerationConfig(samples=4), MODEL)
    assert first + more == longer


def test_seed_is_hashed_not_counted() -> None:
    requests = build_requests(manifest("owl"), GenerationConfig(samples=64), MODEL)
    assert [request.seed for request in requests] == [sample_seed(r.key) for r in requests]
    ordered = sorted(request.seed for request in requests)
    assert all(after - before > 1 for before, after in pairwise(ordered))


def test_no_classes_is_said() -> None:
    with pytest.raises(UserError, match="no classes"):
        build_requests(manifest("x").model_copy(update={"classes": []}), GenerationConfig(), MODEL)


def test_own_queries(tmp_path) -> None:
    lines = tmp_path / "q.txt"
    lines.write_text("# mine\nWhat colour is {article} {class}?\n\nDescribe {plural}\n")
    assert [query.text for query in read_queries(lines)] == [
        "What colour is {article} {class}?",
        "Describe {plural}",
    ]
    entries = tmp_path / "q.yaml"
    entries.write_text("- {id: one, text: 'A {class}'}\n- 'The {class}'\n")
    assert read_queries(entries) == [
        Query(id="one", text="A {class}"),
        Query(id="q2", text="The {class}"),
    ]
    lines.write_text("  # mine\n A {class} \n", encoding="utf-8-sig")  # as Windows writes texts
    assert [query.text for query in read_queries(lines)] == ["A {class}"]
    entries.write_text("queries: ['A {class}']\n")
    assert read_queries(entries) == [Query(id="q1", text="A {class}")]
    for text, said in [
        ("- {id: q2, text: 'A {class}'}\n- 'The {class}'\n", "uses a query id twice"),
        ("queries: 3", "holds no queries"),
        ("- 3", "query 1 of"),
    ]:
        entries.write_text(text)
        with pytest.raises(UserError, match=said):
            read_queries(entries)
    lines.write_bytes(b"A {class} \xff")
    with pytest.raises(UserError, match="not a text file of queries"):
        read_queries(lines)
    for bad in ("", "Describe it\n", "A {clas}\n"):
        lines.write_text(bad)
        with pytest.raises(UserError):
            read_queries(lines)
    with pytest.raises(UserError, match="does not exist"):
        read_queries(tmp_path / "absent.txt")

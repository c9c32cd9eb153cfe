"""What is cut from an answer, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aape.pipeline.config import VerdictConfig
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.languages import in_language
from aape.pipeline.prompts.verdicts import VERDICTS, ClassNames, judge_class, prompt_text


def judged(
    texts: list[str], names: list[str], config: VerdictConfig | None = None, **given
) -> list[str]:
    size = len(texts)
    return judge_class(
        texts,
        given.get("complete", [True] * size),
        given.get("tokens", [10] * size),
        given.get("embeddings", np.eye(size, dtype=np.float32)),
        0,
        ClassNames(names),
        config or VerdictConfig(),
        token_limit=given.get("token_limit"),
    )


@pytest.mark.parametrize(
    ("raw", "finished", "expected", "complete"),
    [
        ("An owl has large eyes. It flies at", False, "An owl has large eyes.", True),
        ("An owl has large eyes and a", False, "An owl has large eyes and a", False),
        ("An owl with large eyes", True, "An owl with large eyes", True),
        ("It weighs 1.5 kg and is grey. More.", True, "It weighs 1.5 kg and is grey.", True),
        ("Dr. Owl is grey. More.", True, "Dr. Owl is grey.", True),
        ("It is an e.g. grey bird. More.", True, "It is an e.g. grey bird.", True),
        ("  1. **An owl** is grey.\n2. It flies.", True, "An owl is grey.", True),
        ("- An owl is grey", True, "An owl is grey", True),
        ('"An owl is grey."', True, "An owl is grey.", True),
        ("“An owl is grey and", False, "An owl is grey and", False),
        ("An   owl\tis grey!", True, "An owl is grey!", True),
        ("<think>hm. well.</think>\n\nAn owl is grey.", True, "An owl is grey.", True),
        ("<think>never ends", False, "", False),
        ('{"description": "An owl is grey. Yes."}', True, "An owl is grey.", True),
        ('{"description": 3}', True, '{"description": 3}', True),
        ('{\n "description" : "An \\"owl\\" is grey. It', False, 'An "owl" is grey.', True),
        ('{"description": "An owl is gr\\u00e', False, "An owl is gr", False),
        ("", True, "", False),
        ("\n \n", True, "", False),
        ("An owl is grey\n\nIt flies at", False, "An owl is grey", True),
        ("Is it grey? It is.", True, "Is it grey?", True),
        ("It is grey... and white. Yes.", True, "It is grey...", True),
    ],
)
def test_cut_to_the_first_sentence(raw: str, finished: bool, expected: str, complete: bool) -> None:
    assert prompt_text(raw, "owl", finished=finished) == (expected, complete)


def test_two_sentences_where_wished() -> None:
    raw = "It is grey. It flies. It hoots at"
    assert prompt_text(raw, "owl", finished=False, sentences=2)[0] == "It is grey. It flies."
    assert prompt_text(raw, "owl", finished=False, sentences=5)[0] == "It is grey. It flies."


def test_a_full_stop_in_the_class_name_ends_nothing() -> None:
    name = "Bentley Supersports Conv. Convertible"
    raw = f"The {name} is fast. It"
    assert prompt_text(raw, name, finished=False) == (f"The {name} is fast.", True)
    odd = "St. Mary.\nThe Church"
    assert prompt_text(f"A {odd} is old. It", odd, finished=False)[0] == f"A {odd} is old."


@given(st.text(max_size=300), st.text(min_size=1, max_size=300), st.booleans())
def test_any_answer_and_any_name(raw: str, name: str, finished: bool) -> None:
    text, complete = prompt_text(raw, name, finished=finished)
    text.encode("utf-8")
    assert isinstance(complete, bool)
    [verdict] = judged([text], [name, "another name"], complete=[complete])
    assert verdict in VERDICTS


def test_the_verdicts() -> None:
    names = ["barn owl", "owl", "snowy owl", "cat"]
    texts = [
        "A barn owl has a white face and long wings.",
        "a BARN owl has a white face, and long wings",
        "I'm sorry, but I cannot describe a barn owl.",
        "As an AI language model, I have never seen a barn owl.",
        "Sure, here is a description of a barn owl.",
        "Here's one short sentence about a barn owl:",
        "White face.",
        "A snowy owl is white with yellow eyes.",
        "The barn owl is smaller than a snowy owl.",
        "Die Schleiereule ist ein Vogel mit einem weißen Gesicht.",
        "这是一只非常漂亮的白色猫头鹰，它有大眼睛 (owl bird).",
        "A barn owl stands on the roof of a house.",
    ]
    assert judged(texts, names) == [
        "kept",
        "duplicate",
        "refusal",
        "refusal",
        "preamble",
        "preamble",
        "fragment",
        "other class",
        "kept",
        "other language",
        "other language",
        "kept",
    ]


def test_addresses_and_code_are_no_prose_but_class_names_are_data() -> None:
    texts = [
        "A picture of a {barn} <b>owl</b> is worth a thousand words.",
        "Look at this picture of it: https://www.",
        'It looks like the following: {"colour": "white"}.',
        "It is a <i>white</i> bird with a face.",
        "It weighs < 1 kg and flies at night.",
    ]
    assert judged(texts, ["{barn} <b>owl</b>"]) == [
        "kept", "fragment", "fragment", "fragment", "kept",
    ]  # fmt: skip


def test_too_long_by_the_limit_of_the_encoder() -> None:
    texts = ["One barn owl sits here.", "Two barn owls sit here."]
    config = VerdictConfig(max_tokens=77)
    assert judged(texts, ["barn owl"], config, tokens=[77, 78]) == ["kept", "too long"]
    assert judged(texts, ["barn owl"], config, tokens=[64, 65], token_limit=64) == [
        "kept",
        "too long",
    ]


def test_near_duplicates_by_cosine_to_kept_ones() -> None:
    texts = [f"The owl number {index} is grey." for index in range(4)]
    angles = np.array([0.0, 0.1, 0.3, 0.4])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    config = VerdictConfig(near_duplicate=0.99)  # 0.1414 radians
    verdicts = judged(texts, ["owl"], config, embeddings=embeddings)
    assert verdicts == ["kept", "near duplicate", "kept", "near duplicate"]
    off = VerdictConfig(near_duplicate=1)
    assert judged(texts, ["owl"], off, embeddings=embeddings) == ["kept"] * 4


def test_the_longest_name_wins() -> None:
    classes = ClassNames(["Audi S4", "Audi S4 Sedan", "crane", "crane", "!!!"])
    assert classes.named("The Audi S4 Sedan is red, and the audi-s4 too") == {0, 1}
    assert classes.named("An audi S4 sedan.") == {1}
    assert classes.named("A crane.") == {2, 3}
    assert classes.named("Nothing!!!") == set()


def test_switches() -> None:
    texts = ["I cannot say what it is.", "Sure, it is a bird.", "La chouette est un oiseau blanc."]
    off = VerdictConfig(refusals=False, preambles=False, language="")
    assert judged(texts, ["owl"], off) == ["kept"] * 3
    french = VerdictConfig(language="fr")
    assert judged(texts[2:], ["chouette"], french) == ["kept"]
    with pytest.raises(UserError, match="language"):
        judged(texts, ["owl"], VerdictConfig(language="tlh"))


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("A photo.", "en", True),
        ("Jacaranda mimosifolia", "en", True),
        ("Le chat est sur la table avec une souris.", "en", False),
        ("El coche es de color rojo y tiene cuatro puertas.", "en", False),
        ("The 2012 Audi TT has a rounded roof and is silver.", "en", True),
        ("Это красная машина", "en", False),
        ("Das Auto ist rot und hat vier Türen.", "de", True),
        ("blue teal red green pink brown black white grey", "en", False),
    ],
)
def test_language(text: str, language: str, expected: bool) -> None:
    assert in_language(text, language) is expected


def test_published_texts_pass(test_data) -> None:
    """The judges are made for rubbish: of CuPL's sentences about cars they drop few."""
    import json

    path = test_data / "descriptions" / "cupl_style" / "cars_prompts_full.json"
    prompts = json.loads(path.read_text())
    names = list(prompts)
    texts = prompts[names[0]] + prompts[names[50]]
    config = VerdictConfig(other_classes=False)
    verdicts = judged(texts, names, config)
    assert sum(verdict in ("refusal", "preamble", "other language") for verdict in verdicts) <= 2

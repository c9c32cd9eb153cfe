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


BEAGLE = "A beagle is a small hound."


@pytest.mark.parametrize(
    "raw",
    [
        f"We need to describe it. </think>{BEAGLE}",
        f"<think>One. Two.</think>\n\n{BEAGLE}",
        f"<think></think>{BEAGLE}",
        f"<think>a</think> No. <think>b</think>{BEAGLE}",
        f"<THINK>hm</THINK> {BEAGLE}",
        f"analysisWe need one sentence. So be it.assistantfinal{BEAGLE}",
        f"analysisUser wants it. assistant final {BEAGLE}",
        f"analysisthe user asks.assistantcommentaryno tools.assistantfinal{BEAGLE}",
        f"<|channel|>analysis<|message|>We need it.<|end|><|start|>assistant<|channel|>final"
        f"<|message|>{BEAGLE}<|return|>",
        f"<|channel|>final<|message|>{BEAGLE}",
        f"<|channel|>final <|constrain|>json<|message|>{BEAGLE}",
        f"final{BEAGLE}",
        f"[THINK] It is a dog. [/THINK] {BEAGLE}",
        f"It is a dog. [/THINK] {BEAGLE}",
        f"<thought>It is.</thought>{BEAGLE}",
        f"<reasoning>İt is.</reasoning>{BEAGLE}",
        f"<|START_THINKING|>It is.<|END_THINKING|><|START_RESPONSE|>{BEAGLE}<|END_RESPONSE|>",
        f"<seed:think>It is.</seed:think>{BEAGLE}",
        f"◁think▷It is.◁/think▷{BEAGLE}",
        f"<unused94>thought It is.<unused95>{BEAGLE}",
        f"Here is my thought process: it is. Here is my response: {BEAGLE}",
        f"Here are my reasoning steps:\nIt is.\n[BEGIN FINAL RESPONSE]\n{BEAGLE}\n"
        "[END FINAL RESPONSE]",
        f"<think>hm</think><answer>{BEAGLE}</answer>",
        f"<|begin_of_thought|>It is.<|end_of_thought|><|begin_of_solution|>{BEAGLE}"
        "<|end_of_solution|>",
        f"{BEAGLE}<|im_end|>\n<|im_start|>user\nThanks.",
        f"{BEAGLE}<end_of_turn>",
        f"{BEAGLE}</s>",
        f"{BEAGLE} <think>Was that right? Perhaps",
        f"Answer: {BEAGLE}",
        f"**Description:** {BEAGLE}",
        f'<think>x</think>{{"description": "{BEAGLE}"}}',
        f'Caption: "{BEAGLE}"',
    ],
)
def test_thoughts_are_no_prompt(raw: str) -> None:
    assert prompt_text(raw, "beagle", finished=True) == (BEAGLE, True)


@pytest.mark.parametrize(
    "raw",
    [
        "<think>A beagle is a dog. We need to",
        "[THINK] A beagle is a dog.",
        "analysisWe need to describe a beagle. It is a dog.",
        "analysisWe need it.assistantcommentarySo be it.",
        "<|channel|>analysis<|message|>A beagle is a dog.",
        "<|start|>assistant<|channel|>analysis<|message|>A beagle is a dog.",
        "<think>one</think><think>A beagle is a dog.",
        "Here is my thought process: A beagle is a dog.",
        "<|START_THINKING|>A beagle is a dog.",
    ],
)
def test_a_thought_that_was_cut_leaves_a_fragment(raw: str) -> None:
    text, complete = prompt_text(raw, "beagle", finished=False)
    assert (text, complete) == ("", False)
    assert judged([text], ["beagle"], complete=[complete]) == ["fragment"]


@pytest.mark.parametrize(
    "text",
    [
        "The final analysis of a beagle shows a small hound.",
        "Analysis of its coat shows three colours, as with every beagle.",
        "Finally, a beagle has long ears.",
        "A beagle thinks with its nose.",
        "A beagle, <3 its owner, wags its tail.",
    ],
)
def test_prose_about_thinking_is_left_as_it_is(text: str) -> None:
    assert prompt_text(text, "beagle", finished=True) == (text, True)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Spreading, a US giant", "beagle"),
        ("Dippy & Mocha - Hugging Face", "blue circle"),
        ("A beagle with long ears and", "beagle"),
        ("A beagle with long ears,", "beagle"),
        ("A beagle has a coat of the", "beagle"),
        ('The caption of a beagle reads: "A dog of', "beagle"),
        ("A beagle (a small hound", "beagle"),
        ("The beagle is a hound that ...", "beagle"),
        ("Long ears and short legs", "beagle"),
        (", in the wildArtichokes are thistle-like flowers that grow in clusters.", "artichoke"),
        ("and how it worksA tank is a container that holds a liquid or gas.", "tank"),
    ],
)
def test_pieces_of_sentences_are_fragments(text: str, name: str) -> None:
    assert judged([text], [name]) == ["fragment"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A beagle on a green lawn", "beagle"),
        ("Two beagles on a lawn", "beagle"),
        ("Churches at night with lights", "church"),
        ("A small bird with large eyes on a branch", "barn owl"),
        ("The tree that it lives in.", "beagle"),
        ("It has long ears... and short legs.", "beagle"),
        ('It says "hello" to all.', "beagle"),
        ("A 2012 Audi S4 seen from the front", "Audi S4 Sedan 2012"),
        ("A photo of a pita (bread) on a plate", "pita (bread)"),
    ],
)
def test_captions_and_sentences_are_kept(text: str, name: str) -> None:
    assert judged([text], [name]) == ["kept"]


def test_a_long_answer_costs_work_in_proportion() -> None:
    """What grew with the square of these would run for hours."""
    answers = [
        "A. b " * 400_000, "<think>" * 300_000, "x" * 2_000_000, "analysis " * 200_000,
        "assistantfinal" * 100_000, '{"description": "' + "\\n" * 500_000, ". " * 1_000_000,
        "<|channel|>" * 200_000, "b" * 1_000_000,
    ]  # fmt: skip
    for raw in answers:
        text, _ = prompt_text(raw, "b", finished=True)
        assert len(text) <= 4_000
    ending = "word " * 2_000 + "end."
    assert prompt_text(ending, "owl", finished=True)[1] is False

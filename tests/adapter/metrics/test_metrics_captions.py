"""CIDEr-D, BLEU, ROUGE-L, the tokenizer and CLIPScore: by hand, and against their references."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aape.adapter.metrics.clipscore import clip_score, ref_clip_score
from aape.adapter.metrics.meteor_spice import available, java_scores
from aape.adapter.metrics.ngrams import bleu, cider_d, common_subsequence, rouge_l
from aape.adapter.metrics.tokenize import ptb_tokens, tokenize_captions
from aape.pipeline.errors import UserError


@pytest.fixture(scope="module")
def coco(test_data: Path) -> list[list[str]]:
    """Captions of each real COCO image."""
    groups: dict[int, list[str]] = {}
    for path in sorted((test_data / "coco_mini" / "annotations").glob("*.json")):
        for row in json.loads(path.read_text())["annotations"]:
            groups.setdefault(row["image_id"], []).append(row["caption"])
    return list(groups.values())


@pytest.fixture(scope="module")
def scored(coco: list[list[str]]) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Candidates of mixed quality (right, of another image, scrambled, empty) and references."""
    rng = random.Random(0)
    candidates, references = [], []
    for index, group in enumerate(coco):
        line = ptb_tokens(group[0] if index % 3 else rng.choice(coco)[0])
        if index % 5 == 0:
            rng.shuffle(line)
        candidates.append(line if index % 40 else [])
        references.append(tokenize_captions(group[1 : 2 + index % 4]))
    return candidates, references


def pycoco(scored, scorer) -> tuple[float, np.ndarray]:
    candidates, references = scored
    truth = {i: [" ".join(line) for line in group] for i, group in enumerate(references)}
    return scorer.compute_score(truth, {i: [" ".join(line)] for i, line in enumerate(candidates)})


def test_cider_d_equals_pycocoevalcap(scored) -> None:
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    mean, each = pycoco(scored, cider.Cider())
    ours = cider_d(*scored)
    np.testing.assert_allclose(ours, each, atol=1e-4)
    assert ours.mean() == pytest.approx(mean, abs=1e-4)
    assert 0.1 < ours.mean() < 5


def test_bleu_equals_pycocoevalcap(scored) -> None:
    module = pytest.importorskip("pycocoevalcap.bleu.bleu_scorer")
    candidates, references = scored
    scorer = module.BleuScorer(n=4)
    for line, group in zip(candidates, references):
        scorer += (" ".join(line), [" ".join(words) for words in group])
    expected, _ = scorer.compute_score(option="closest")
    np.testing.assert_allclose(bleu(candidates, references), expected, atol=1e-4)


def test_rouge_l_equals_pycocoevalcap(scored) -> None:
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    _, each = pycoco(scored, rouge.Rouge())
    np.testing.assert_allclose(rouge_l(*scored), each, atol=1e-4)


def test_tokens_equal_the_java_tokenizer(coco: list[list[str]], test_data: Path) -> None:
    module = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if shutil.which("java") is None:
        pytest.skip("the reference tokenizer needs java")
    lines = [line for group in coco for line in group]
    written = json.loads((test_data / "descriptions/hpt_gpt/ImageNet.json").read_text())
    described = [text for texts in list(written.values())[:400] for text in texts if text.strip()]
    given_lines = {i: [{"caption": line}] for i, line in enumerate(lines + described)}
    expected = [row[0] for row in module.PTBTokenizer().tokenize(given_lines).values()]
    ours = [" ".join(tokens) for tokens in tokenize_captions(lines + described)]
    assert ours[: len(lines)] == expected[: len(lines)]
    wrong = [pair for pair in zip(ours[len(lines) :], expected[len(lines) :]) if len(set(pair)) > 1]
    assert len(wrong) <= 0.005 * len(described), wrong[:5]


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A man isn't here.", "a man is n't here"),
        ("the dog's bone, the dogs' bones", "the dog 's bone the dogs bones"),
        ("it's 10:30 a.m. in the U.S.", "it 's 10:30 a.m. in the u.s."),
        ("cost $5.00 or 1,000 dollars (50%)", "cost $ 5.00 or 1,000 dollars -lrb- 50 % -rrb-"),
        ("black-and-white and/or red", "black-and-white and/or red"),
        ("cannot wanna o'clock ma'am", "can not wan na o'clock ma'am"),
        ("Mr. Smith said “hello”… no!", "mr. smith said hello no"),
        ("a café -- naïve 日本語 😀", "a café naïve 日本語"),
        # as Java writes them
        ("'em 'til the '50s, '50 and rock 'n' roll", "'em 'til the '50s '50 and rock 'n' roll"),
        ("rock'n'roll d' l'eau", "rock 'n' roll d' l'eau"),
        ("C++ code, c#. and F#", "c++ code c# and f#"),
        ("_x_ a_b __init__ x_", "_ x _ a_b __ init __ x _"),
        ("said no. 5 dogs, no.5, no.", "said no. 5 dogs no. 5 no"),
        ("AT&T at&t", "at&t at & t"),
        ("+5 a---b ** 1½", "+5 a b ** 1 1/2"),
        ("fine :) or :-( here", "fine :-rrb- or :--lrb- here"),
        ("see fig. 2 on tues. approx. five", "see fig. 2 on tues. approx five"),
        ("", ""),
    ],
)
def test_known_tokens(caption: str, tokens: str) -> None:
    assert ptb_tokens(caption) == tokens.split()


def test_cider_d_by_hand() -> None:
    """Two images, one reference each: every n-gram has idf log 2 and the cosine is a fraction."""
    references = [[["a", "b"]], [["c", "d"]]]
    # "a b" is right: orders 1 and 2 match fully, 3 and 4 do not exist
    # "c x": one of two unigrams matches, cosine 1/2; the bigram does not
    scores = cider_d([["a", "b"], ["c", "x"]], references)
    np.testing.assert_allclose(scores, [10 * 2 / 4, 10 * 0.5 / 4])
    # one bigram longer: the Gaussian penalty exp(-1 / 72) and a smaller cosine
    longer = cider_d([["a", "b", "b"], ["c"]], references)[0]
    unigram, bigram = (1 + 1) / (math.sqrt(2) * math.sqrt(5)), 1 / math.sqrt(2)
    assert longer == pytest.approx(10 * (unigram + bigram) / 4 * math.exp(-1 / 72))


def test_cider_d_of_a_caption_of_one_word_by_hand() -> None:
    """No bigram against one: the penalty of a difference of one, as for two against three."""
    score = cider_d([["c"], ["x"]], [[["c", "d"]], [["e"]]])[0]
    assert score == pytest.approx(10 * (1 / math.sqrt(2)) / 4 * math.exp(-1 / 72))


def test_the_only_n_gram_of_its_order_counts_for_its_caption() -> None:
    line = ["a", "b", "c", "d"]  # the only one with four words
    assert cider_d([["x"], line], [[["y"]], [line]]).tolist() == pytest.approx([0, 10])


def test_an_empty_reference_beside_another_is_of_no_account() -> None:
    candidates, references = [["a", "b"], ["c"]], [[[], ["a", "b"]], [["c"], []]]
    assert rouge_l(candidates, references).tolist() == pytest.approx([1, 1])
    assert bleu(candidates, references)[0] == pytest.approx(1)
    assert np.isfinite(cider_d(candidates, references)).all()


def test_bleu_and_rouge_by_hand() -> None:
    candidate = ["the", "cat", "sat", "on", "mat"]
    reference = ["the", "cat", "is", "on", "the", "mat"]
    scores = bleu([candidate], [[reference]])
    brevity = math.exp(1 - 6 / 5)
    assert scores[0] == pytest.approx(brevity * 4 / 5)
    assert scores[1] == pytest.approx(brevity * math.sqrt(4 / 5 * 1 / 4))
    precision, recall = 4 / 5, 4 / 6
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l([candidate], [[reference]])[0] == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abcd"), max_size=70), st.lists(st.sampled_from("abcd"), max_size=9)
)
def test_common_subsequence_equals_the_table(left: list[str], right: list[str]) -> None:
    table = np.zeros((len(left) + 1, len(right) + 1), int)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1, j + 1] = (
                table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
            )
    assert common_subsequence(left, right) == table[-1, -1]


def test_empty_candidates_score_zero() -> None:
    references = [[["a", "b"]], [["c"]]]
    assert cider_d([[], []], references).tolist() == [0, 0]
    assert bleu([[], []], references)[0] == pytest.approx(0, abs=1e-6)
    assert rouge_l([[], []], references).tolist() == [0, 0]


@pytest.mark.parametrize("metric", [cider_d, bleu, rouge_l])
def test_bad_input_is_named(metric) -> None:
    with pytest.raises(UserError, match="references for 2 images"):
        metric([["a"]], [[["a"]], [["b"]]])
    with pytest.raises(UserError, match="no reference caption"):
        metric([["a"], ["b"]], [[["a"]], []])
    with pytest.raises(UserError, match="no captions"):
        metric([], [])


def test_clip_scores_follow_the_published_formula() -> None:
    rng = np.random.default_rng(0)
    images, captions = rng.normal(size=(2, 20, 8))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    captions /= np.linalg.norm(captions, axis=1, keepdims=True)
    references = [g / np.linalg.norm(g, axis=1, keepdims=True) for g in rng.normal(size=(20, 3, 8))]
    plain = clip_score(images, captions)
    for i in range(20):
        cosine = float(images[i] @ captions[i])
        assert plain[i] == pytest.approx(2.5 * max(cosine, 0))
    both = ref_clip_score(images, captions, references)
    for i in range(20):
        best = max(0.0, *(float(captions[i] @ r) for r in references[i]))
        wanted = 2 / (1 / plain[i] + 1 / best) if plain[i] and best else 0
        assert both[i] == pytest.approx(wanted)
    assert (plain == 0).any()
    assert (plain > 0).any()


def test_meteor_runs_where_java_is() -> None:
    missing = available()
    if missing["METEOR"]:
        pytest.skip(missing["METEOR"])
    same = [["a", "red", "box", "stands"], ["two", "dogs", "run", "fast"]]
    right = java_scores(same, [[line] for line in same])["METEOR"]
    wrong = java_scores(same[::-1], [[line] for line in same])["METEOR"]
    assert right > 0.9 > 0.1 > wrong

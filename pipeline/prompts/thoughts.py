"""Language models that think aloud: what they wrote before their answer is taken away.

Templates and servers lose parts of the marks: the opener is often in the prompt, special tokens are
left out of the text, and a limit of tokens ends a thought in its middle. All work here is linear in
the length of an answer.
"""

from __future__ import annotations

import re

# Pairs of marks, lower case: DeepSeek, Qwen, GLM, Nemotron; Mistral; EXAONE; Cohere; Kimi; Seed;
# Open-Thoughts; MedGemma; LongCat; and the tags people ask for in prompts.
_PAIRS = (
    ("<think>", "</think>"),
    ("[think]", "[/think]"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|start_thinking|>", "<|end_thinking|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
    ("<unused94>", "<unused95>"),
)
# Granite's and Apriel's headings
_HEADINGS = (
    ("here is my thought process:", "here is my response:"),
    ("here are my reasoning steps:", "[begin final response]"),
)
# gpt-oss writes channels; without its special tokens their names run into the words
_FINAL = re.compile(
    r"<\|channel\|>\s*final\s*(?:<\|constrain\|>\s*\w{1,20}\s*)?<\|message\|>|assistant\s*final(?=\W|[A-Z])"
)
_CHANNEL = re.compile(r"\s*(?:(?:<\|start\|>)?\s*(?:assistant)?\s*<\|channel\|>\s*)?"
                      r"(analysis|commentary)(?=<\||[^\W\d_])")  # fmt: skip
_BARE_FINAL = re.compile(r"\s*final(?=[A-Z])")
# what follows the end of a turn is no part of the answer
_TURN = re.compile(
    r"<\|(?:im_end|eot_id|end|return|endoftext|end_of_text|eom_id|call|end_of_turn_token)\|>"
    r"|<end_of_turn>|</s>|\[end final response\]|</answer>|<\|end_response\|>"
    r"|<\|end_of_solution\|>",
    re.IGNORECASE,
)
_AROUND = re.compile(
    r"^\s*(?:<answer>|<\|start_response\|>|<\|begin_of_solution\|>|<\|begin_of_box\|>"
    r"|<\|im_start\|>\s*(?:assistant)?|<\|start\|>\s*assistant)\s*",
    re.IGNORECASE,
)


def without_thoughts(text: str) -> tuple[str, bool]:
    """Return the answer after the thoughts, and whether there is one.

    A thought that was cut off leaves nothing: the answer was never begun.

    >>> without_thoughts("We need to describe it. </think>A beagle is a small hound.")
    ('A beagle is a small hound.', True)
    >>> without_thoughts("<think>We need to")
    ('', False)
    >>> without_thoughts("analysisWe need a sentence.assistantfinalA beagle is small.")
    ('A beagle is small.', True)
    """
    answer, answered = _after_channels(text)
    if answered:
        answer, answered = _after_marks(answer)
    if not answered:
        return "", False
    answer = _AROUND.sub("", answer)
    if ended := _TURN.search(answer):
        answer = answer[: ended.start()]
    return answer.strip() if answer != text else text, True


def _after_channels(text: str) -> tuple[str, bool]:
    marks = list(_FINAL.finditer(text))
    last = marks[-1] if marks else None
    begins = _CHANNEL.match(text)
    if last is not None and ("<|" in last.group() or begins):
        return text[last.end() :], True
    if begins:
        return "", False
    if bare := _BARE_FINAL.match(text):
        return text[bare.end() :], True
    return text, True


def _after_marks(text: str) -> tuple[str, bool]:
    # lower() can change the length of a text (İ), so case is folded in ASCII alone
    low = text.translate(_LOWER)
    for opener, closer in (*_PAIRS, *_HEADINGS):
        end = low.rfind(closer)
        begin = low.rfind(opener)
        if begin > end:  # opened again, or never closed
            before = text[:begin].strip()
            inside = end >= 0 or not before
            # a thought behind an answer is left away, one before it was cut off
            return ("", False) if inside else (before, True)
        if end >= 0:
            text, low = text[end + len(closer) :], low[end + len(closer) :]
    return text, True


_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}

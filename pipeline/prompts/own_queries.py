"""Queries that the language model writes by itself, from one sentence about the photos.

After MPVR (Mirza et al., ECCV 2024): a fixed instruction with one worked example and the sentence
of the user gives queries for this domain; asked of every class in turn, they give descriptions.
What comes back is a stranger's text, so that a query is taken only if it can do no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from ..config import GenerationConfig
from ..datasets.manifest import Manifest, Query
from ..errors import UserError
from .requests import ModelIdentity, Request, fill_query, one_request, sampling_values
from .thoughts import without_thoughts
from .verdicts import ClassNames, is_refusal_or_preamble

# the instruction in its words; another one must not find the answers to this one
_META = Query(id="meta-1", text="queries for the photos of {about}")
_EXAMPLE_ABOUT = "front doors of houses, photographed from the street"
_EXAMPLE = (
    "What does the front door of a {class} look like?",
    "Which colours and materials are usual for the door of a {class}?",
    "Describe the handle, the panes and the frame at the entrance of a {class}.",
    "What stands or grows beside the door of a {class} in a photo?",
    "By which details of its entrance is a {class} told from other houses?",
)
_LONGEST = 200  # characters of a query
_FEWEST_WORDS = 4  # beside the class
_LONGEST_ANSWER = 20_000
_MARK = re.compile(
    r"^\s*(?:[-*•#>]+|\(?\d{1,3}[.):]|q(?:uestion)?\s*\d*\s*[.):])\s*", re.IGNORECASE
)
_PLACE = re.compile(
    r"[{<\[(]\s*(?:class|class[ _-]?name|name of the class)\s*[}>\])]", re.IGNORECASE
)
_ARTICLE = re.compile(r"\b([Aa])n? \{class\}")
_PLURAL = re.compile(r"\{class\}e?s\b")
_FORBIDDEN = re.compile(r"[{}<>\\|`%$]|https?:|\bwww\.", re.IGNORECASE)
# a question or an order; small models write statements, and a statement is continued, not answered
_ASKS = re.compile(
    r"(?:(?:in|by|from|at|on|with|to|of|for) )?(?:what|which|how|where|whose)\b"
    r"|(?:is|are|does|do|can|could|would|has|have|if|when) "
    r"|(?:describe|explain|list|name|tell|give|imagine|picture|paint|identify|discuss|compare|show"
    r"|outline|characteri[sz]e|summari[sz]e|provide|share|detail|examine|illustrate|mention|state"
    r"|write|visuali[sz]e|depict|point|highlight|say)\b"
    r"|(?:an? )?(?:caption|photo|picture|image|description) of\b",
    re.IGNORECASE,
)
# the class is a word of the sentence: no part of a longer one, and not behind its end
_STANDS_ALONE = re.compile(r"(?<![\w-])\{class\}(?=e?s?(?:['’]s)?(?:[\s.,;:?!)]|$))")
_BEHIND = re.compile(r"[.?!]\s[^.?!]*\{class\}[^.?!]*$")
_QUESTION_END = re.compile(r"[.?!:]$")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def meta_requests(
    manifest: Manifest, config: GenerationConfig, model: ModelIdentity, *, structured: bool
) -> list[Request]:
    """Return the requests whose answers hold queries; ``structured`` asks for them as JSON.

    Raises:
        UserError: the sentence about the photos holds control characters.
    """
    about = config.about.strip()
    if not about.isprintable():
        raise UserError(
            "The sentence about the photos holds characters that cannot be printed.",
            'Write one line, such as --about "photos of mushrooms taken in forests".',
        )
    own = config.own_queries
    prompt = _instruction(about, own.per_answer)
    if structured:
        prompt += ' Answer as JSON with one field, "queries": a list of texts.'
    sampling = sampling_values(config)
    sampling |= {"max_tokens": own.max_tokens, "temperature": own.temperature}
    sampling.pop("structured_output", None)
    if structured:
        sampling["structured_output"] = True
    return [
        one_request(
            manifest, config, model, -1, _META, _META.text, prompt, sampling, sample, "queries"
        )
        for sample in range(own.answers)
    ]


def _instruction(about: str, count: int) -> str:
    example = "\n".join(_EXAMPLE)
    return (
        "Photos are sorted into classes by what can be seen. An assistant will be asked about one"
        f" class after the other; you write the questions. Write {count} different questions about"
        " the look of a class: its shape, colours, pattern, parts, size, posture, surroundings."
        " Every question holds the placeholder {class} exactly once, where the name of the class"
        " will stand; name no class yourself. One question a line, and nothing else.\n\n"
        f"Photos: {_EXAMPLE_ABOUT}\n{example}\n\nPhotos: {about}"
    )


def read_own_queries(
    answers: Sequence[tuple[str, bool]], classes: ClassNames, most: int
) -> tuple[list[Query], int]:
    """Return the valid queries in the order in which they were written, and how many were not.

    Args:
        answers: each answer, and whether the language model ended it by itself.
        classes: none of them may be named in a query. most: no more queries than this.
    """
    found: dict[str, str] = {}
    refused = 0
    for text, finished in answers:
        for line in _lines(text, finished):
            query = valid_query(line, classes)
            if query is None:
                refused += 1
            else:
                found.setdefault(_plain(query), query)
    texts = list(found.values())[:most]
    return [Query(id=f"own-{i}", text=text) for i, text in enumerate(texts, 1)], refused


def valid_query(line: str, classes: ClassNames) -> str | None:
    """Return a line as a query, or nothing where it is none or must not be asked.

    It asks or orders, holds the class exactly once, as a word, and no other braces, markup, address
    or control character. It has at least four words beside it and at most 200 characters, names no
    class of the data set, and is not taken over from the example. "a {class}" gets the article of
    each class, "{class}s" its plural.

    >>> valid_query("1. What colour is a {class}?", ClassNames(["owl"]))
    'What colour is {article} {class}?'
    >>> valid_query("What colour is the owl beside a {class}?", ClassNames(["owl"])) is None
    True
    """
    text = _MARK.sub("", " ".join(line.split())).strip(" \"'“”*_")
    text = _PLACE.sub("{class}", text)
    rest = text.replace("{class}", " ")
    words = re.findall(r"[^\W\d_]+", rest)
    if text.count("{class}") != 1 or _FORBIDDEN.search(rest) or not line.isprintable():
        return None
    if len(text) > _LONGEST or len(words) < _FEWEST_WORDS or not text.isprintable():
        return None
    if not (_ASKS.match(text) and _STANDS_ALONE.search(text)) or _BEHIND.search(text):
        return None
    if _plain(text) in _COPIED or is_refusal_or_preamble(text) or classes.named(rest):
        return None
    text = _PLURAL.sub("{plural}", text)
    text = _ARTICLE.sub(lambda found: _capital(found, text), text)
    fill_query(text, "thing")  # only slots that are known
    return text


def _capital(found: re.Match[str], text: str) -> str:
    """A sentence that begins with the article keeps it: the slot has no capital."""
    return found.group() if found.group(1) == "A" and found.start() == 0 else "{article} {class}"


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


_COPIED = {_plain(text) for text in _EXAMPLE}


def _lines(text: str, finished: bool) -> list[str]:
    """Return what may be queries: the strings of a structured answer, or its lines."""
    answer, answered = without_thoughts(text)
    if not answered:
        return []
    answer = answer[:_LONGEST_ANSWER]
    start = re.match(r'\s*(?:```(?:json)?\s*)?\{\s*"queries"\s*:\s*\[', answer)
    if start is not None:
        return [line for found in _QUOTED.finditer(answer, start.end()) if (line := _string(found))]
    lines = [line for line in answer.splitlines() if line.strip()]
    if lines and not finished and not _QUESTION_END.search(lines[-1].strip()):
        lines.pop()  # it was cut off
    return lines


def _string(found: re.Match[str]) -> str:
    try:
        value = json.loads(found.group(), strict=False)
    except ValueError:
        return ""
    return value if isinstance(value, str) else ""

"""Which prompts are kept, and why the others are not. Nothing is deleted: a verdict is a column.

n prompts of one class, d embedding width.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from ..config import VerdictConfig
from ..errors import unknown_name
from .engines.base import unwrap
from .fragments import is_fragment
from .languages import LANGUAGES, in_language
from .thoughts import without_thoughts

KEPT = "kept"
FRAGMENT = "fragment"
REFUSAL = "refusal"
PREAMBLE = "preamble"
LANGUAGE = "other language"
TOO_LONG = "too long"
OTHER_CLASS = "other class"
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near duplicate"
OTHER_NAME = "other name"  # as in bank/schema.py, which would load pyarrow
VERDICTS = (
    KEPT, FRAGMENT, REFUSAL, PREAMBLE, LANGUAGE, TOO_LONG, OTHER_CLASS, DUPLICATE, NEAR_DUPLICATE,
    OTHER_NAME,
)  # fmt: skip

_REFUSAL = re.compile(
    r"^(i['’]?m sorry|i am sorry|sorry,|i apologi[sz]e|unfortunately, (i|there)|"
    r"i (cannot|can['’]?t|can not|could not|couldn['’]?t|am unable|am not able|do not|don['’]?t) "
    r"|i['’]?m (unable|not (able|sure|familiar))|i am not (sure|familiar))|"
    r"\b(as an? (ai|artificial intelligence|(large )?language model)|i am an ai|i['’]m an ai)\b",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(
    r"^(sure\b|certainly\b|of course\b|absolutely\b|okay\b|ok,|great question|"
    r"here(['’]s| is| are)\b.*\b(descriptions?|sentences?|captions?|answers?|examples?|summary|"
    r"overview|list)\b|"
    r"(below|the following) (is|are)\b)|:$",
    re.IGNORECASE,
)
_CODE = re.compile(r"https?://|\bwww\.|[{}\\]|</?[a-z]+>", re.IGNORECASE)
_LABEL = re.compile(
    r"(?:final )?(?:answer|description|caption|sentence|response|output)\s*:\s+(?=\S)",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"^\s*(?:[-*•#>]+|\d{1,2}[.)])\s+|\*\*|__|`+")
_ABBREVIATIONS = {
    "mr", "mrs", "ms", "dr", "st", "no", "vs", "e.g", "i.e", "etc", "approx", "conv", "inc",
    "ltd", "jr", "sr", "fig", "u.s", "u.k", "ft", "cm", "ca", "cf",
}  # fmt: skip
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)")


# What is looked at of an answer: more than any prompt, and no more work than an answer is worth.
_LONGEST_ANSWER = 40_000
_LONGEST_LINE = 4_000
_LONGEST_WORD = 64


def prompt_text(
    raw: str, class_name: str, *, finished: bool, sentences: int = 1
) -> tuple[str, bool]:
    """Cut a raw answer to the prompt it holds: its text, and whether that is complete.

    Taken away are thoughts (:mod:`.thoughts`), the wrapping of a structured answer, list marks,
    labels such as "Answer:", quotes around the whole and repeated white space. A paragraph is
    looked at up to 4,000 characters. What stays are the first ``sentences`` complete
    sentences of the first line that has text. A sentence ends at ``.``, ``!`` or ``?`` before a
    space, but not inside the class name, after an abbreviation, or after a single capital.

    ``finished`` says that the language model ended by itself: then a text without a full stop (a
    caption) is complete too. An answer that was cut off before its first full stop is not.

    >>> prompt_text("The Conv. Coupe is red. It is", "Conv. Coupe", finished=False)
    ('The Conv. Coupe is red.', True)
    """
    answer, answered = without_thoughts(raw)
    if not answered:
        return "", False
    text = unwrap(answer)[:_LONGEST_ANSWER].encode("utf-8", "replace").decode("utf-8")
    # A class name may hold line breaks; elsewhere a line break ends the first paragraph.
    names, text = _protect(text, class_name)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return "", False
    first = lines[0][:_LONGEST_LINE]
    line = _MARKUP.sub("", first).strip()
    if label := _LABEL.match(line):
        line = line[label.end() :]
    line = _unquote(line)
    true_ends = (found.end() for found in _END.finditer(line) if _is_end(line, found))
    ends = list(islice(true_ends, sentences))
    if ends:
        # several sentences wanted and only the last one incomplete: the complete ones are enough
        return _restore(line[: ends[-1]], names), True
    whole = (finished or len(lines) > 1) and len(first) == len(lines[0])
    return _restore(line, names), whole


# While sentences are looked for, the class name is one character of a private use area.
_NAME = "\ue0ff"


def _protect(text: str, class_name: str) -> tuple[list[str], str]:
    """Replace each class name by one character; returns the names as they stood, and the text."""
    text = text.replace(_NAME, "")
    if not class_name.strip():
        return [], text
    pattern = re.compile(re.escape(class_name), re.IGNORECASE)
    return pattern.findall(text), pattern.sub(_NAME, text)


def _restore(text: str, names: Sequence[str]) -> str:
    """Put the names back and join other white space; ``text`` may be cut at its end."""
    left = iter(names)
    collapsed = re.sub(r"\s+", " ", text).strip()
    return re.sub(_NAME, lambda _: next(left), collapsed)


def _unquote(text: str) -> str:
    pairs = {'"': '"', "“": "”", "'": "'", "‘": "’"}
    text = text.strip()
    closing = pairs.get(text[:1])
    if closing is None:
        return text
    if len(text) > 1 and text[-1] == closing and closing not in text[1:-1]:
        return text[1:-1].strip()
    return text if closing in text[1:] else text[1:].strip()


def _is_end(line: str, found: re.Match[str]) -> bool:
    if not found.group().startswith(".") or found.group().startswith(".."):
        return True
    rest = line[found.end() : found.end() + _LONGEST_WORD].lstrip()
    if not rest:
        return not line[found.end() :].strip()
    words = line[max(0, found.start() - _LONGEST_WORD) : found.start()].split()
    before = words[-1].lstrip("([\"'“‘") if words else ""
    if before.casefold() in _ABBREVIATIONS or re.fullmatch(r"[A-Z]", before):
        return False
    return not rest[0].islower()


def is_refusal_or_preamble(text: str) -> bool:
    """Does a text refuse, or only announce an answer?

    >>> [is_refusal_or_preamble(text) for text in ("Sure, here are ten questions:", "Is it red?")]
    [True, False]
    """
    return bool(_REFUSAL.search(text) or _PREAMBLE.search(text))


@dataclass
class ClassNames:
    """The class names of a data set, for finding the classes that a text names.

    A name counts where its words stand together; the longest name at a place wins, so "Audi S4"
    inside "Audi S4 Sedan" is not another class. Names of several classes at once (ImageNet repeats
    two) belong to all of them.
    """

    names: Sequence[str]
    _ids: dict[tuple[str, ...], set[int]] = field(init=False, default_factory=dict)
    _longest: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        for class_id, name in enumerate(self.names):
            words = tuple(_words(name))
            if words:
                self._ids.setdefault(words, set()).add(class_id)
                self._longest = max(self._longest, len(words))

    def named(self, text: str) -> set[int]:
        """Return the ids of the classes whose name stands in ``text``."""
        words = _words(text)
        found: set[int] = set()
        place = 0
        while place < len(words):
            for length in range(min(self._longest, len(words) - place), 0, -1):
                ids = self._ids.get(tuple(words[place : place + length]))
                if ids:
                    found |= ids
                    place += length - 1
                    break
            place += 1
        return found


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", text).casefold()
    return re.findall(r"[^\W_]+", plain)


def judge_class(
    texts: Sequence[str],
    complete: Sequence[bool],
    tokens: Sequence[int],
    embeddings: np.ndarray,
    class_id: int,
    classes: ClassNames,
    config: VerdictConfig,
    *,
    token_limit: int | None = None,
    apart: Sequence[bool] | None = None,
) -> list[str]:
    """Return the verdict of each prompt of one class, in order: earlier ones win over duplicates.

    Args:
        texts: (n,) what :func:`prompt_text` returned, with ``complete``.
        tokens: (n,) lengths in the encoder's own tokenizer.
        embeddings: (n, d) unit length.
        token_limit: what the encoder reads, if less than ``config.max_tokens``.
        apart: (n,) texts that set the class apart; they may name no other class at all, since a
            text that names it is drawn to it.

    Raises:
        UserError: the language asked for is unknown.
    """
    if config.language and config.language not in LANGUAGES:
        raise unknown_name("language", config.language, LANGUAGES)
    limit = min(config.max_tokens, token_limit or config.max_tokens)
    seen: set[str] = set()
    kept: list[int] = []
    verdicts: list[str] = []
    for row, text in enumerate(texts):
        verdict = _judge_text(text, complete[row], classes.names[class_id], config)
        if verdict == KEPT and tokens[row] > limit:
            verdict = TOO_LONG
        strict = apart is not None and apart[row]
        if (
            verdict == KEPT
            and config.other_classes
            and _names_another(text, class_id, classes, strict)
        ):
            verdict = OTHER_CLASS
        plain = " ".join(_words(text)) or text
        if verdict == KEPT and plain in seen:
            verdict = DUPLICATE
        if verdict == KEPT and config.near_duplicate < 1 and kept:
            nearest = float((embeddings[kept] @ embeddings[row]).max())
            if nearest > config.near_duplicate:
                verdict = NEAR_DUPLICATE
        if verdict == KEPT:
            seen.add(plain)
            kept.append(row)
        verdicts.append(verdict)
    return verdicts


def _judge_text(text: str, complete: bool, class_name: str, config: VerdictConfig) -> str:
    """Return the verdict on one text by itself."""
    if config.refusals and _REFUSAL.search(text):
        return REFUSAL
    if config.preambles and _PREAMBLE.search(text):
        return PREAMBLE
    rest = _protect(text, class_name)[1].replace(_NAME, " ")
    words = len(_words(text))
    if not complete or words < config.min_words or not any(map(str.isalpha, text)):
        return FRAGMENT
    if is_fragment(text, class_name):
        return FRAGMENT
    if _CODE.search(rest):  # addresses, braces and tags are no prose
        return FRAGMENT
    if config.language and _words(rest) and not in_language(rest, config.language):
        return LANGUAGE
    return KEPT


def _names_another(text: str, class_id: int, classes: ClassNames, strict: bool = False) -> bool:
    """Does the text name another class, and not its own? Where ``strict``, another one at all.

    "A maltese resembles a bichon" still describes a maltese; "The bichon is white" does not.
    """
    named = classes.named(text)
    if strict:  # a twin of the same name is no other class
        return bool(named - {class_id} - classes.named(classes.names[class_id]))
    return bool(named) and class_id not in named

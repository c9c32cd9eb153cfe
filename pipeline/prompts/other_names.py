"""Other names of classes: a language model is asked for synonyms, one an answer.

Training chooses among them by photos (``aape train --names best``), after REAL (Parashar et al.,
CVPR 2024), which takes the name that is most frequent in texts of the web. A name is no
description: its verdict is ``other name``, so that no reader of kept prompts meets it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..config import GenerationConfig
from ..datasets.manifest import Manifest, Query
from .requests import ModelIdentity, Request, fill_query, one_request, sampling_values
from .thoughts import without_thoughts
from .verdicts import (
    DUPLICATE,
    FRAGMENT,
    OTHER_CLASS,
    OTHER_NAME,
    ClassNames,
    is_refusal_or_preamble,
)

_QUESTION = (
    "What is another common name for {article} {class}, {category}? Answer with the name alone, a"
    " word or two."
)
_LONGEST = 60  # characters
_MOST_WORDS = 5
_QUOTED = re.compile(r"[\"“”*]([^\"“”*]{2,60})[\"“”*]")
_SAYS = re.compile(
    r"^.*\b(?:name (?:for|of) [^.]{1,80}? is"
    r"|(?:also|commonly|sometimes) (?:known|called|referred to)"
    r"(?: simply)?(?: as)?|is called|answer\s*:|name\s*:)\s*",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^(?:a|an|the)\s+", re.IGNORECASE)
# words that make a sentence, or one person's thing, of what should be a name
_NO_NAME = frozenset({"is", "are", "was", "were", "it", "my", "your", "his", "her", "this", "that"})
_WORDS = re.compile(r"[^\W_]+(?:['’.&/-]+[^\W_]+)*(?: [^\W_]+(?:['’.&/-]+[^\W_]+)*)*")


def name_requests(
    manifest: Manifest, config: GenerationConfig, model: ModelIdentity
) -> list[Request]:
    """Return the requests for other names, ``config.other_names`` of each class."""
    from ..bank.schema import NAME_QUERY

    query = Query(id=NAME_QUERY, text=_QUESTION)
    sampling = sampling_values(config)
    sampling.pop("structured_output", None)
    return [
        one_request(
            manifest, config, model, class_id, query, query.text,
            fill_query(query.text, name, manifest.category), sampling, sample, "name",
        )
        for class_id, name in enumerate(manifest.class_names)
        for sample in range(config.other_names)
    ]  # fmt: skip


def name_in(answer: str) -> str:
    """Return the name that an answer holds, or nothing.

    >>> name_in('An owl is also known as a "night bird".'), name_in("Robin")
    ('night bird', 'Robin')
    >>> name_in("It is a bird that lives in the woods and hunts at night.")
    ''
    """
    text, answered = without_thoughts(answer)
    line = next((line for line in text[:2000].splitlines() if line.strip()), "")[:300]
    if not answered or is_refusal_or_preamble(line):
        return ""
    quoted = _QUOTED.search(line)
    name = quoted.group(1) if quoted else _SAYS.sub("", line)
    name = _ARTICLE.sub("", name.strip(" \t\"'“”‘’.,;:!*-"))
    if _NO_NAME & set(name.casefold().split()):
        return ""
    fits = len(name) <= _LONGEST and len(name.split()) <= _MOST_WORDS
    return name if fits and _WORDS.fullmatch(name) and any(map(str.isalpha, name)) else ""


def judge_names(texts: Sequence[str], class_id: int, classes: ClassNames) -> list[str]:
    """Return the verdict of each name of one class, in order: earlier ones win over duplicates.

    A name of another class of the data set, or one that holds such a name and not the own one,
    would draw that class here: ``other class``.
    """
    own = _plain(classes.names[class_id])
    seen = {own}
    verdicts = []
    for text in texts:
        plain = _plain(text)
        named = classes.named(text)
        if not plain:
            verdict = FRAGMENT
        elif plain in seen:
            verdict = DUPLICATE
        elif named and class_id not in named:
            verdict = OTHER_CLASS
        else:
            verdict = OTHER_NAME
            seen.add(plain)
        verdicts.append(verdict)
    return verdicts


def _plain(name: str) -> str:
    """Letters and digits without case; a plural that differs by its s alone is the same name."""
    plain = "".join(re.findall(r"[^\W_]", name.casefold()))
    return plain.removesuffix("s") if len(plain) > 3 else plain

"""Is a text a whole sentence or caption, or a piece of one?

Judged by its end and its beginning alone, so that prose with a full stop is left as it is. Of
58,540 published descriptions (CuPL's texts, HPT's of ImageNet, LVIS) these rules refuse 32, each of
which begins with the tail of its question, such as "and how it worksA tank is …".
"""

from __future__ import annotations

import re

_WHOLE_END = re.compile(r"[.!?][\"'”’)\]»]*$")
_TRAILING_OFF = re.compile(r"(?:\.\.|…)[\"'”’)\]]*$")
# words that nothing can end with; some can before a full stop ("the tree it lives in.")
_ARTICLES = ("a", "an", "the", "its", "their", "his", "her")
_JOINING = ("and", "or", "but", "nor", "that", "which", "than", "as", "like", "such", "very")
_PREPOSITIONS = ("of", "with", "to", "in", "on", "at", "for", "from", "by", "into", "onto")
_VERBS = ("is", "are", "was", "were", "be", "has", "have", "had", "can", "may")
_DANGLING = frozenset((*_ARTICLES, *_JOINING, *_PREPOSITIONS, *_VERBS))
_CONTINUED = re.compile(r"(?:and|or|but|nor|because|which|whose|,|;|\))(?=\W|$)")
_SHORT = 6  # words of a caption that does not say what it shows
_PAIRED = (("(", ")"), ("[", "]"), ("“", "”"))


def is_fragment(text: str, class_name: str) -> bool:
    """Say whether a text is plainly a piece of something.

    >>> is_fragment("Spreading, a US giant", "beagle")
    True
    >>> is_fragment("A beagle on a lawn", "beagle"), is_fragment("A small hound.", "beagle")
    (False, False)
    """
    text = text.strip()
    if _CONTINUED.match(text) or _TRAILING_OFF.search(text):
        return True
    if _WHOLE_END.search(text):
        return False
    if text.endswith((",", ";", ":", "-", "–", "—", "(", "/", "&")):
        return True
    if any(text.count(opener) > text.count(closer) for opener, closer in _PAIRED):
        return True
    if text.count('"') % 2:
        return True
    words = _words(text)
    if not words or words[-1] in _DANGLING:
        return True
    return len(words) < _SHORT and not _mentions(words, class_name)


def _mentions(words: list[str], class_name: str) -> bool:
    """Is a word of the class name among the words, as it is or in the plural?"""
    named = _words(class_name)
    if not any(word.isascii() for word in named):
        return True  # a script without spaces between words
    return any(
        word == name or (len(name) > 2 and word.startswith(name[:-1])) for word in words
        for name in named if name not in _DANGLING
    )  # fmt: skip


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())

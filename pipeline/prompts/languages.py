"""Is a sentence in the language that was asked for? Told by its letters and its little words."""

from __future__ import annotations

import re
import unicodedata

_LITTLE_WORDS = {
    "en": "the a an is are of and with in on to it its has have that this for by as at from or was "
    "can be very which you they their often usually look looks like",
    "de": "der die das ein eine einen einer und mit ist sind von im in den dem des auf zu es hat "
    "auch wie für nicht oder aus bei als",
    "fr": "le la les un une des est sont de du et avec dans en sur il elle pour que qui au aux par "
    "ce cette ou sa son",
    "es": "el la los las un una unos es son de del y con en que se por para su al lo como más o "
    "tiene está este esta",
    "it": "il lo la i gli le un una è sono di del della e con in che si per su al da come più o ha "
    "questo questa",
    "pt": "o a os as um uma é são de do da dos e com em que se por para no na ao como mais ou tem "
    "este esta",
    "nl": "de het een is zijn van en met in op te dat die voor aan door als ook niet of uit bij",
}
LANGUAGES = tuple(_LITTLE_WORDS)
_WORDS = {language: frozenset(words.split()) for language, words in _LITTLE_WORDS.items()}
_LATIN_SHARE = 0.8
_ENOUGH_WORDS = 8


def in_language(text: str, language: str) -> bool:
    """Return False where ``text`` is plainly in another language than ``language``.

    All languages here are written in Latin letters: a text with more than a fifth of other letters
    is in another. Otherwise its little words decide, and only when some other language has more of
    them than ``language``, or when a text of eight words or more has none at all. Names and
    captions without little words pass.

    >>> in_language("Das Auto hat eine rote Farbe und ist sehr groß.", "en")
    False
    >>> in_language("A red car.", "en")
    True
    """
    letters = [letter for letter in text if letter.isalpha()]
    latin = sum("LATIN" in unicodedata.name(letter, "") for letter in letters)
    if letters and latin / len(letters) < _LATIN_SHARE:
        return False
    words = re.findall(r"[^\W\d_]+", text.casefold())
    hits = {name: sum(word in known for word in words) for name, known in _WORDS.items()}
    if len(words) >= _ENOUGH_WORDS and hits[language] == 0:
        return False
    return hits[language] >= max(hits.values()) or hits[language] * 2 > max(hits.values())

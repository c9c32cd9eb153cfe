"""English articles and plurals of class names, for the queries to the language model."""

from __future__ import annotations

import re

# Letters whose names begin with a vowel sound: "an F-150", "an MG", but "a BMW".
_VOWEL_NAMED = set("AEFHILMNORSX")
_SILENT_H = ("hour", "honest", "honor", "honour", "heir")
# Vowel letters that sound like a consonant: "a unicycle", "a European robin", "a one-way sign".
_CONSONANT_SOUND = re.compile(
    r"(uni(?!n|m)|use|usu|usa|uti|uri|uten|ukul|ufo|u-|eu|ew|one\b|once)", re.IGNORECASE
)
_IRREGULAR = {
    "man": "men",
    "woman": "women",
    "child": "children",
    "person": "people",
    "foot": "feet",
    "tooth": "teeth",
    "goose": "geese",
    "mouse": "mice",
    "ox": "oxen",
    "leaf": "leaves",
    "knife": "knives",
    "wolf": "wolves",
    "shelf": "shelves",
    "half": "halves",
    "loaf": "loaves",
    "calf": "calves",
    "cactus": "cacti",
}
_INVARIANT = {"fish", "sheep", "deer", "series", "species", "aircraft", "salmon", "moose", "bison"}
_PREPOSITION = re.compile(r"(?= (?:of|in|with|on|at|from) )", re.IGNORECASE)


def article(name: str) -> str:
    """Return ``"a"`` or ``"an"``, by the sound that ``name`` begins with.

    >>> [article(name) for name in ("Audi TT", "MG", "BMW", "unicorn", "8-ball", "hourglass")]
    ['an', 'an', 'a', 'a', 'an', 'an']
    """
    word = re.match(r"[^\W_]+", name.lstrip(" \t\n\"'“‘(<["))
    if word is None:
        return "a"
    first = word.group()
    if first[0].isdecimal():
        # eight, eleven, eighteen, eighty …; years such as 1800 and 1994 do not begin with a vowel
        digits = re.split(r"\D", first, maxsplit=1)[0]
        return "an" if digits[0] == "8" or digits in ("11", "18") else "a"
    if _is_spelled(first):
        return "an" if first[0] in _VOWEL_NAMED else "a"
    if first.lower().startswith(_SILENT_H):
        return "an"
    if _CONSONANT_SOUND.match(name[name.find(first) :]):
        return "a"
    return "an" if first[0].lower() in "aeiou" else "a"


def _is_spelled(word: str) -> bool:
    """Is the word said letter by letter, as "MD" in "MD-11" or "F" in "F-16"?"""
    letters = re.match(r"[A-Z]+", word)
    if letters is None or (
        len(word) > len(letters.group()) and word[len(letters.group())].islower()
    ):
        return False
    run = letters.group()
    if len(run) == 1:
        return len(word) == 1 or word[1].isdigit()
    return len(run) <= 3 or not set(run) & set("AEIOUY")


def plural(name: str) -> str:
    """Return the plural of a class name; the word before a preposition is the one that changes.

    >>> [plural(name) for name in ("church", "bird of paradise", "daisy", "aircraft", "scissors")]
    ['churches', 'birds of paradise', 'daisies', 'aircraft', 'scissors']
    """
    head, rest = name, ""
    found = _PREPOSITION.search(name)
    if found is not None and found.start() > 0:
        head, rest = name[: found.start()], name[found.start() :]
    word = re.search(r"[^\W\d_]+$", head)
    if word is None:
        return f"{head}s{rest}" if head and head[-1].isalnum() else name
    stem, last = head[: word.start()], word.group()
    return f"{stem}{_plural_word(last)}{rest}"


def _plural_word(word: str) -> str:
    low = word.lower()
    if low in _INVARIANT:
        return word
    if low in _IRREGULAR:
        changed = _IRREGULAR[low]
        return changed.capitalize() if word[0].isupper() else changed
    if low.endswith(("ch", "sh", "ss", "x", "z", "us", "is")):
        return f"{word}es"
    if low.endswith("s"):
        return word
    if low.endswith("y") and low[-2:-1] not in tuple("aeiou"):
        return f"{word[:-1]}ies"
    return f"{word}s"

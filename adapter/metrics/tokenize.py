"""Penn Treebank tokens of captions without Java.

Caption metrics are defined on the output of Stanford's ``PTBTokenizer -lowerCase`` with punctuation
removed (Chen et al. 2015, the COCO caption server). This gives the same tokens on ordinary
English text; ``tests/adapter/metrics/test_metrics_captions.py`` compares the two on real captions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# what the COCO evaluation drops; brackets stay, since it lists them in upper case only
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
_DROPPED = PUNCTUATION | {'"', "“", "”", "‘", "’", "„"}

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_SYMBOLS = {"€": "$", "£": "#", "¢": "cents", "–": "--", "—": "--", "…": "..."}
_FRACTIONS = str.maketrans({"½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 ", "\u200b": " "})
_BRACKET = re.compile(r"[()\[\]{}]")
_ABBREVIATIONS = (
    "mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|inc|ltd|corp|co|bros|ave|blvd|rd|mt|ft|gen|col|lt|sgt|capt|"
    "rep|sen|gov|rev|hon|pres|dept|est|jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec|"
    "mon|tues?|wed|thurs?|fri|esq|tel|ext|calif|fla|ph\\.d|m\\.d"
)
_APOSTROPHE = "['’]"
_LETTER = r"[^\W\d_]"
_WORD = r"[^\W_](?:\w*[^\W_])?"
_SUFFIX = rf"(?:{_APOSTROPHE}(?:s|m|d|re|ve|ll))(?![^\W_])"

_TOKEN = re.compile(
    rf"""
    https?://\S*[^\s.,;:!?)] | [\w.+-]+@[\w-]+(?:\.[\w-]+)+       # addresses
  | [#@]{_LETTER}\w*                                  # hashtags, handles
  | </?[a-z]+\s*/?>                                   # mark-up
  | (?:{_ABBREVIATIONS}|(?:nos?|figs?|pp|art)(?=\.\s*\d))\.(?![^\W\d])  # they keep their point
  | c\+\+ | [cf]\#(?!\w)                              # languages
  | [<>]?[:;=][-o*']?[()dp\[\]{{}}@|\\](?![^\W_])     # faces
  | (?:{_LETTER}\.)+{_LETTER}?(?![^\W_])              # u.s., a.m., b.
  | \d+:\d\d(?!\d)                                    # times
  | (?<!\S)[-+]\d+(?:\.\d+)?(?!\.?\w)                # numbers with a sign
  | (?:\d+(?:,\d+)*(?:\.\d+)?|\.\d+)(?![^\W_]|[-/.][^\W_]|_)     # numbers
  | \d+(?:-\d+)?/\d+(?![^\W_])                        # fractions
  | {_APOSTROPHE}(?:\d0s|\d\d|em|till?|cause)(?!\w)  # '90s, 'til
  | [ldj]{_APOSTROPHE}(?!\w)
  | {_SUFFIX}                                         # 's on its own
  | {_APOSTROPHE}n{_APOSTROPHE}
  | {_APOSTROPHE}[nt](?:{_APOSTROPHE})?(?![^\W_]) | {_APOSTROPHE}t(?=is|was)
  | (?-i:[A-Z]+(?:&[A-Z]+)+)(?!\w)                   # AT&T, but not in lower case
  | {_WORD}(?:(?:[-/.]|(?!{_SUFFIX}|n{_APOSTROPHE}t\b|{_APOSTROPHE}n\b){_APOSTROPHE}){_WORD})*
  | [.]{{2,}} | -{{2,}} | [?!]{{2,}} | \*+ | _+ | ``|'' | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)

# words PTB takes apart
_SPLITS = {
    "cannot": ("can", "not"), "gonna": ("gon", "na"), "wanna": ("wan", "na"),
    "gotta": ("got", "ta"), "gimme": ("gim", "me"), "lemme": ("lem", "me"),
    "y'all": ("y'", "all"),
}  # fmt: skip
_NEGATION = re.compile(r"(?<=\w)(?=n['’]t$)")


def ptb_tokens(caption: str) -> list[str]:
    """Return the lower-case PTB tokens of one caption, punctuation left out.

    >>> ptb_tokens("A man's dog isn't here, (yet).")
    ['a', 'man', "'s", 'dog', 'is', "n't", 'here', '-lrb-', 'yet', '-rrb-']
    """
    tokens: list[str] = []
    for found in _TOKEN.findall(caption.translate(_FRACTIONS).replace("’", "'")):
        token = found.lower()
        for part in _SPLITS.get(token) or _NEGATION.split(token):
            part = _BRACKET.sub(lambda one: _BRACKETS[one[0]], part)
            part = _SYMBOLS.get(part, part)
            if not _is_punctuation(part) and ord(part[0]) < 0x10000:
                tokens.append(part)
    return tokens


def _is_punctuation(token: str) -> bool:
    return token in _DROPPED or token.startswith("..") or set(token) == {"-"}


def tokenize_captions(captions: Iterable[str]) -> list[list[str]]:
    """Return :func:`ptb_tokens` of each caption; equal captions are tokenised once."""
    seen: dict[str, list[str]] = {}
    return [
        seen[caption] if caption in seen else seen.setdefault(caption, ptb_tokens(caption))
        for caption in captions
    ]

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
_ABBREVIATIONS = (
    "mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|inc|ltd|corp|co|bros|ave|blvd|rd|mt|ft|gen|col|lt|sgt|capt|"
    "rep|sen|gov|rev|hon|pres|dept|est|jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec|approx|"
    "ph\\.d|m\\.d"
)
_APOSTROPHE = "['’]"
_LETTER = r"[^\W\d_]"
_SUFFIX = rf"(?:{_APOSTROPHE}(?:s|m|d|re|ve|ll))(?![^\W_])"

_TOKEN = re.compile(
    rf"""
    https?://\S*[^\s.,;:!?)] | [\w.+-]+@[\w-]+(?:\.[\w-]+)+       # addresses
  | [#@]{_LETTER}\w*                                  # hashtags, handles
  | </?[a-z]+\s*/?>                                   # mark-up
  | (?:{_ABBREVIATIONS}|no(?=\.\s\d))\.(?!\w)         # abbreviations keep their point
  | (?:{_LETTER}\.)+{_LETTER}?(?![^\W_])              # u.s., a.m., b.
  | \d+:\d\d(?!\d)                                    # times
  | (?<!\S)-\d+(?:\.\d+)?(?!\.?\w)                   # negative numbers
  | (?:\d+(?:,\d+)*(?:\.\d+)?|\.\d+)(?![^\W_]|[-/.][^\W_]|_)     # numbers
  | \d+(?:-\d+)?/\d+(?![^\W_])                        # fractions
  | {_APOSTROPHE}\d0s(?!\w)                           # '90s
  | {_SUFFIX}                                         # 's on its own
  | {_APOSTROPHE}[nt](?:{_APOSTROPHE})?(?![^\W_]) | {_APOSTROPHE}t(?=is|was)
  | (?:[^\W_]|_)+(?:(?:[-/&.]|(?!{_SUFFIX}|n{_APOSTROPHE}t\b){_APOSTROPHE})(?:[^\W_]|_)+)*
  | [.]{{2,}} | -{{2,}} | [?!]{{2,}} | ``|'' | \S
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
    for token in _TOKEN.findall(caption.lower().replace("’", "'")):
        for part in _SPLITS.get(token) or _NEGATION.split(token):
            part = _BRACKETS.get(part) or _SYMBOLS.get(part) or part
            if part not in _DROPPED and not part.startswith("..") and ord(part[0]) < 0x10000:
                tokens.append(part)
    return tokens


def tokenize_captions(captions: Iterable[str]) -> list[list[str]]:
    """Return :func:`ptb_tokens` of each caption; equal captions are tokenised once."""
    seen: dict[str, list[str]] = {}
    return [
        seen[caption] if caption in seen else seen.setdefault(caption, ptb_tokens(caption))
        for caption in captions
    ]

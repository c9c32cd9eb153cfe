"""Whether text read as Windows' Latin is Western text, or another encoding taken for it."""

from __future__ import annotations

import re

# letters are plausible, and what Western text has between them; Shift JIS and GBK give the others
_MARKS = frozenset("–—‘’“”„…•€°§«»©®™´`·½¼¾²³£¿¡ºª×\u00a0")
_RUN = re.compile(r"[^\x00-\x7f]+")
_MOST = 0.5


def is_western(text: str) -> bool:
    """Say whether most characters beyond ASCII stand as they do in Western text.

    There they are letters one by one, or two of the same case as in Finnish ``ää``. Of Chinese,
    Japanese, Korean and Russian text come long runs, odd signs and control characters instead.

    >>> is_western("théière, pääskynen, Größe – 5 €")
    True
    >>> is_western("猫咪".encode("gbk").decode("cp1252"))
    False
    """
    odd = every = 0
    for match in _RUN.finditer(text):
        run = match.group()
        every += len(run)
        odd += 0 if _is_plausible(run) else len(run)
    return odd <= _MOST * every


def _is_plausible(run: str) -> bool:
    letters = run.strip("".join(_MARKS))
    if not letters:
        return True
    if len(letters) > 2 or not letters.isalpha() or "ƒ" in letters:
        return False
    return letters.islower() or letters.isupper()

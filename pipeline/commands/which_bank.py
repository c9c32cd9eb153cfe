"""The words of a bank command: which bank, and what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError


def split_words(words: Sequence[str], bank: str, wanted: str = "") -> tuple[str, str]:
    """Split a command's words into the bank, ``""`` if none is named, and what is asked of it.

    Args:
        words: ``[BANK]``, or ``[BANK] TEXT`` where something is asked.
        bank: the option ``--bank``, or ``""``.
        wanted: what is asked, in words for the error; ``""`` if nothing.

    Raises:
        UserError: words are missing or too many.

    >>> split_words(["cars.bank.parquet", "a red car"], "", "The text")
    ('cars.bank.parquet', 'a red car')
    """
    from ..bank.folder import is_folder_bank

    words = list(words)
    asked = words.pop() if wanted and words else ""
    only_a_bank = not (words or bank) and (
        (asked.endswith(".parquet") and Path(asked).is_file()) or is_folder_bank(asked)
    )
    if wanted and (not asked or only_a_bank):
        raise UserError(f"{wanted} is missing.", "See the command's --help.")
    if len(words) + bool(bank) > 1:
        raise UserError(
            f"Too many words: {' '.join(map(repr, [*words, asked]))}.",
            "Put text of several words in quotes, and name the bank once.",
        )
    return words[0] if words else bank, asked

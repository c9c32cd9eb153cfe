"""Which bank a command means: the one it names, or the only one in the current folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..bank.format import KEY
from ..errors import UserError


def locate(words: Sequence[str], bank: str, wanted: str = "") -> tuple[Path, str]:
    """Split a command's words into the bank and what is asked of it.

    Args:
        words: ``[BANK]``, or ``[BANK] TEXT`` where something is asked.
        bank: the option ``--bank``, or ``""``.
        wanted: what is asked, in words for the error; ``""`` if nothing.

    Raises:
        UserError: words are missing or too many, or no bank is named and the current folder has
            none or several.
    """
    words = list(words)
    asked = words.pop() if wanted and words else ""
    only_a_bank = not (words or bank) and asked.endswith(".parquet") and Path(asked).is_file()
    if wanted and (not asked or only_a_bank):
        raise UserError(f"{wanted} is missing.", "See the command's --help.")
    if len(words) + bool(bank) > 1:
        raise UserError(
            f"Too many words: {' '.join(map(repr, [*words, asked]))}.",
            "Put text of several words in quotes, and name the bank once.",
        )
    if words or bank:
        return Path(words[0] if words else bank), asked
    here = [path for path in sorted(Path().glob("*.parquet")) if looks_like_bank(path)]
    if len(here) != 1:
        found = f"{len(here)} banks: {', '.join(map(str, here))}" if here else "no bank"
        raise UserError(
            f"No bank is named, and the current folder has {found}.", "Name one: --bank FILE."
        )
    return here[0], asked


def looks_like_bank(path: Path) -> bool:
    """Say whether a file ends as a bank does, be it sound or damaged."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - (1 << 24)))
        return KEY in stream.read()

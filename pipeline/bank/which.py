"""Which bank is meant: the one that is named, or the only one in the current folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from .bank import PromptBank


def named_bank(bank: str | Path | PromptBank = "") -> PromptBank:
    """Open a bank; nothing stands for the only one in the current folder.

    Raises:
        UserError: it cannot be read, or the current folder has none or several.
    """
    from .bank import PromptBank

    return bank if isinstance(bank, PromptBank) else PromptBank.open(bank_path(bank))


def bank_path(bank: str | Path = "") -> Path:
    """Return the path of a bank; nothing stands for the only one in the current folder.

    Raises:
        UserError: none is named, and the current folder has none or several.
    """
    from .folder import LISTING, is_folder_bank

    if str(bank):
        return Path(bank)
    here = [path for path in sorted(Path().glob("*.parquet")) if looks_like_bank(path)]
    folders = (path.parent for path in sorted(Path().glob(f"*/{LISTING}")))
    here += [folder for folder in folders if is_folder_bank(folder)]
    if len(here) != 1:
        found = f"{len(here)} banks: {', '.join(map(str, here))}" if here else "no bank"
        raise UserError(
            f"No bank is named, and the current folder has {found}.",
            "Name one: --bank FILE. Those of own photos lie in $AAPE_HOME/banks, by default"
            " ~/.cache/aape/banks.",
        )
    return here[0]


def looks_like_bank(path: Path) -> bool:
    """Say whether a file ends as a bank does, be it sound or damaged."""
    from .format import KEY

    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - (1 << 24)))
        return KEY in stream.read()

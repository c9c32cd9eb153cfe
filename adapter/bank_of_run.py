"""The bank a run was trained on, found again.

A run may come from somebody else, so its word for where the bank lies is a hint and no more: what
is opened must be a Parquet file of exactly the content that the run was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.bank.folder import bank_digest, is_folder_bank
from ..pipeline.errors import UserError
from ..pipeline.paths import is_file

if TYPE_CHECKING:
    from ..pipeline.bank import PromptBank


def bank_of_run(
    run: str | Path, about: dict[str, Any], given: str | Path | None = None
) -> PromptBank:
    """Open the bank of a run, by its content.

    Args:
        run: the run folder; the bank may also lie in it or beside it.
        about: the run's ``adapter_config.json``.
        given: where the user says that the bank is.

    Raises:
        UserError: the run had no bank, or no file here has the bank's content.
    """
    from ..pipeline.bank import PromptBank

    recorded, wanted = about.get("bank"), about.get("bank_sha256")
    if not isinstance(recorded, str) or not recorded or not isinstance(wanted, str):
        raise UserError(f"{run} was trained without a bank of prompts.")
    if given:
        if not Path(given).is_file() and not is_folder_bank(given):
            raise UserError(f"There is no bank {given}.")
        if bank_digest(given) != wanted:
            raise UserError(
                f"{given} is not the bank that {run} was trained on: its content differs.",
                "Name the bank of that run, or train on this one.",
            )
        return PromptBank.open(given)
    name = Path(recorded).name
    for place in (Path(recorded), Path(run) / name, Path(run).parent / name):
        here = is_file(place) if place.suffix == ".parquet" else is_folder_bank(place)
        if here and bank_digest(place) == wanted:
            return PromptBank.open(place)
    raise UserError(
        f"The bank that {run} was trained on ({name}) is not here, or it changed since.",
        "Say where it is: --bank FILE.",
    )

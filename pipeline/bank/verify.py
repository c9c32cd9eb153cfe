"""Is a bank whole? Every byte against its checksum, every row against the content hash."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ..config import Section
from ..errors import UserError
from .bank import PromptBank
from .content import ContentHash
from .folder import is_folder_bank
from .index import index_intact, read_report
from .schema import KEPT


class VerifyReport(Section):
    """The findings. ``problems`` is empty for a sound bank; ``index`` says how the index is."""

    path: str
    rows: int = 0
    row_groups: int = 0
    content_hash: str = ""
    problems: list[str] = Field(default_factory=list)
    index: str = "absent"
    remedy: str = ""

    @property
    def sound(self) -> bool:
        """True where the bank, and its index if there is one, can be used."""
        return not self.problems and self.index in ("absent", "sound")


def verify_bank(path: str | Path) -> VerifyReport:
    """Check a bank and its index completely: reads every byte once, and decodes every row.

    Damage is reported, not raised, and named by row group and class.

    Raises:
        UserError: there is no such file.
    """
    path = Path(path)
    if not path.is_file() and not is_folder_bank(path):
        PromptBank.open(path)  # says what is wrong
    try:
        bank = PromptBank.open(path)
    except UserError as error:
        return VerifyReport(path=str(path), problems=[error.message], remedy=error.hint)
    groups = range(len(bank.footer.groups))
    problems = [
        f"Damaged: {bank.vectors.describe(index)}."
        for index in groups
        if not bank.vectors.intact(index)
    ]
    if not problems:
        problems += [
            f"Vectors that are not of unit length: {bank.vectors.describe(index)}."
            for index in groups
            if not bank.vectors.of_length(index)
        ]
    try:
        if not problems:
            problems += _content_problems(bank)
        if not problems:
            problems += _directory_problems(bank)
    except UserError as error:  # sealed by somebody whose rows are none
        problems.append(error.message)
    index = _index_state(bank)
    remedy = ""
    if problems:
        remedy = (
            "Repeat the command that made the bank (finished answers are reused), or restore it."
        )
    elif index not in ("absent", "sound"):
        remedy = f"aape bank reindex {path}"
    return VerifyReport(
        path=str(path),
        rows=len(bank),
        row_groups=len(groups),
        content_hash=bank.content_hash,
        problems=problems,
        index=index,
        remedy=remedy,
    )


def _content_problems(bank: PromptBank) -> list[str]:
    """Compare the rows with the content hash of each file, and with that of all."""
    whole, own = ContentHash(), [ContentHash() for _ in bank.files]
    for index, (start, vectors) in enumerate(bank.vectors.groups()):
        rows = bank.rows(start, start + len(vectors))
        whole.update(rows, vectors)
        if len(bank.files) > 1:
            own[bank.vectors.place(index)[0]].update(rows, vectors)
    said = [(bank.path, bank.content_hash, whole)]
    if len(bank.files) > 1:
        said += [
            (file.path, file.footer.content_hash, content)
            for file, content in zip(bank.files, own, strict=True)
        ]
    return [
        f"The rows of {path} hash to {found}, it says {hashed}."
        for path, hashed, content in said
        if (found := content.hexdigest()) != hashed
    ]


def _directory_problems(bank: PromptBank) -> list[str]:
    """Compare what the footer says of every class with its rows: where they lie, how many."""
    problems = []
    covered = 0
    for entry in bank.footer.classes:
        where = f"{entry.dataset} class {entry.class_id}"
        if entry.start != covered or entry.rows < 1 or entry.start + entry.rows > len(bank):
            problems.append(f"The directory is wrong about the rows of {where}.")
            break
        covered += entry.rows
        rows = bank.rows(
            entry.start, entry.start + entry.rows, ["dataset", "class_id", "verdict"]
        ).to_pylist()
        owners = {(row["dataset"], row["class_id"]) for row in rows}
        kept = sum(row["verdict"] == KEPT for row in rows)
        if owners != {(entry.dataset, entry.class_id)} or kept != entry.kept:
            problems.append(f"The directory is wrong about the rows of {where}.")
    if not problems and covered != len(bank):
        problems.append(f"The directory has {covered} of {len(bank)} rows.")
    return problems[:5]


def _index_state(bank: PromptBank) -> str:
    if not bank.index_path.exists():
        return "absent"
    try:
        report = read_report(bank)
    except UserError as error:
        return error.message
    return "sound" if index_intact(bank, report) else f"{bank.index_path} is damaged"

"""A bank in parts: one folder, one view.

A part is a bank like any other, ``part-00000.bank.parquet`` and so on; every class lies in one of
them, and they follow each other in the order of rows. ``bank.json`` names the parts, each by the
seal that stands for all its bytes, and has the content hash of all rows: that of one file with the
same rows. So a part that is absent, exchanged, or of another bank is found when the folder is
opened, and an index fits a folder as it fits a file.
"""

# pyarrow.compute makes its functions at import, so they are unknown to the type checker:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ..config import Section
from ..errors import UserError
from ..files import atomic_folder, exclusive, hash_file, hash_value, read_json, write_json
from ..paths import is_file
from .content import ContentHash
from .format import REMAKE, BankFile, Footer, read_footer
from .schema import BankMetadata

if TYPE_CHECKING:
    import pyarrow as pa

    from .bank import PromptBank

LISTING = "bank.json"
INDEX = "bank.faiss"
_NAME = re.compile(r"part-\d{5,9}\.bank\.parquet")
_VERSION = 1


class Part(Section):
    """A part: the name of its file in the folder, and the seal of that bank."""

    name: str
    seal: str


class Listing(Section):
    """What ``bank.json`` says; ``sha256`` is the hash of the rest."""

    version: int = _VERSION
    content_hash: str
    parts: list[Part] = Field(min_length=1)
    sha256: str = ""

    def digest(self) -> str:
        """Return the hash of everything but ``sha256``."""
        return hash_value(self.model_dump(mode="json", exclude={"sha256"}))


def is_folder_bank(path: str | Path) -> bool:
    """Say whether a folder claims to be a bank in parts, be it sound or damaged.

    The folder of a bank's answers keeps the recipe of the bank under the same name.
    """
    listing = Path(path) / LISTING
    if not is_file(listing):
        return False
    with listing.open("rb") as stream:
        beginning = stream.read(4096)
    return b'"parts"' in beginning or b'"recipe"' not in beginning


def bank_digest(path: str | Path) -> str:
    """Return a hash of all bytes of a bank: of its file, or of the listing with its seals.

    Raises:
        OSError: there is no such file.
    """
    return hash_file(Path(path) / LISTING if Path(path).is_dir() else path)


def read_folder(folder: Path) -> tuple[Footer, list[BankFile]]:
    """Open all parts: one footer for all rows, and the files.

    Raises:
        UserError: the folder is no bank in parts, a part is absent, damaged or another bank, or
            the parts do not belong together.
    """
    if not is_folder_bank(folder):
        raise UserError(
            f"{folder} is a folder, not a bank: it has no {LISTING}.",
            "Name a .parquet file, or make one folder of banks: "
            "aape bank merge A B --out FOLDER --parts 8.",
        )
    listing = Listing.parse(read_json(folder / LISTING), str(folder / LISTING))
    if listing.version > _VERSION:
        raise UserError(
            f"{folder / LISTING} has version {listing.version}; this aape reads {_VERSION}.",
            "Update aape: pip install --upgrade aape.",
        )
    if listing.digest() != listing.sha256:
        raise UserError(f"{folder / LISTING} is damaged: its checksum does not agree.", REMAKE)
    files: list[BankFile] = []
    for part in listing.parts:
        if not _NAME.fullmatch(part.name):
            raise UserError(f"{folder / LISTING} names a part {part.name[:100]!r}.", REMAKE)
        if not (folder / part.name).is_file():
            raise UserError(f"The bank {folder} lacks its part {part.name}.", REMAKE)
        footer = read_footer(folder / part.name)
        if footer.seal != part.seal:
            raise UserError(f"{folder / part.name} is not the part that belongs here.", REMAKE)
        if files and footer.metadata == files[0].footer.metadata:
            # each part knows the names of all classes: of n parts, n times n / parts would be held
            footer = footer.model_copy(update={"metadata": files[0].footer.metadata})
        files.append(BankFile(folder / part.name, footer))
    return _joined(folder, files, listing.content_hash), files


def _joined(folder: Path, files: list[BankFile], content_hash: str) -> Footer:
    """Return the footer of all parts as of one file; offsets of groups stay those of their file."""
    first = files[0].footer.metadata
    groups, classes, start = [], [], 0
    last: tuple[str, int] = ("", -1)
    for path, footer in files:
        other = footer.metadata
        if (other.encoder_fingerprint, other.dim) != (first.encoder_fingerprint, first.dim):
            raise UserError(
                f"{path} was encoded by {other.encoder_fingerprint}, {files[0].path} by "
                f"{first.encoder_fingerprint}: parts of two encoders are no bank.",
                "Make all parts with one encoder.",
            )
        if other != first:
            raise UserError(
                f"{path} describes other data sets or classes than {files[0].path}.", REMAKE
            )
        for entry in footer.classes:
            here = (entry.dataset, entry.class_id)
            if here <= last:
                raise UserError(
                    f"Class {entry.class_id} of {entry.dataset} in {path.name} lies in a part "
                    f"before it too, or belongs there ({folder}).",
                    REMAKE,
                )
            last = here
            classes.append(entry.model_copy(update={"start": entry.start + start}))
        groups += footer.groups
        start += footer.rows
    return Footer.model_construct(
        seal="", metadata=first, rows=start, content_hash=content_hash, groups=groups,
        classes=classes,
    )  # fmt: skip


def write_folder(
    folder: str | Path, tables: Iterable[pa.Table], metadata: BankMetadata
) -> PromptBank:
    """Write a bank in parts, one of each table; only one table is in memory at a time.

    The folder appears whole or not at all.

    Args:
        folder: absent, or empty.
        tables: rows of :func:`.schema.arrow_schema`, in any order within a table. The classes of
            one come after those of the one before, by data set and class id.

    Raises:
        UserError: as :func:`.write.write_bank`, and where a class is in two tables, or comes in
            another order, there is no table, or something is in the folder.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from .bank import PromptBank
    from .write import write_part

    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists.", "Choose another name, or remove it first.")
    content, ids = ContentHash(), []
    with exclusive(folder, "writing"), atomic_folder(folder) as temporary:
        files: list[BankFile] = []
        for number, table in enumerate(tables):
            path = temporary / f"part-{number:05}.bank.parquet"
            files.append(BankFile(path, write_part(path, table, metadata, content)))
            ids.append(table.column("prompt_id").combine_chunks())
            del table
        if not files:
            raise UserError("There is no row to write.", "A bank in parts has one part at least.")
        every = pa.chunked_array(ids)
        if len(pc.unique(every)) != len(every):
            raise UserError("Two parts have one prompt id.", "Ids must be unique in a bank.")
        _joined(folder, files, "")  # refuses classes in two parts
        parts = [Part(name=path.name, seal=footer.seal) for path, footer in files]
        listing = Listing(content_hash=content.hexdigest(), parts=parts)
        listing = listing.model_copy(update={"sha256": listing.digest()})
        write_json(temporary / LISTING, listing.model_dump(mode="json"))
    return PromptBank.open(folder)

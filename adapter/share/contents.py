"""What a pushed run or bank consists of, with checksums; and whether what was pulled is that."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import Field

from ... import __version__
from ...pipeline.bank import PromptBank
from ...pipeline.bank.card import bank_card
from ...pipeline.bank.folder import is_folder_bank
from ...pipeline.bank.verify import verify_bank
from ...pipeline.config import Section
from ...pipeline.errors import UserError
from ...pipeline.files import hash_file, read_json, write_json, write_text
from ...pipeline.paths import is_plain_name
from ..config import Config
from ..export.folder import FILES, placeless, placeless_config, write_folder
from ..run import RunFolder

RUN, BANK = "run", "bank"
FILE = "aape.json"
_BANK_SUFFIX = ".bank.parquet"
_CARD = "README.md"


class Entry(Section):
    """A file: bytes and SHA-256."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Listing(Section):
    """What ``aape.json`` of a repository says."""

    kind: str
    version: str
    files: dict[str, Entry]


def lay_out(thing: Path, folder: Path) -> str:
    """Write everything that is pushed into an empty folder; return the kind.

    Raises:
        UserError: it is neither a run nor a bank, or it is damaged.
    """
    if is_folder_bank(thing):
        raise UserError(
            f"{thing} is a bank in parts; a hub takes one of a single file.",
            f"Make one: aape bank merge {thing} --out NEW.bank.parquet.",
        )
    if thing.is_dir():
        kind = RUN
        write_folder(thing, folder)
    elif thing.suffix == ".parquet" and thing.is_file():
        kind = BANK
        _lay_out_bank(thing, folder)
    else:
        raise UserError(
            f"{thing} is neither a run folder nor a bank.", "Name what to push: aape push RUN REPO."
        )
    files = {
        path.name: Entry(size=path.stat().st_size, sha256=hash_file(path))
        for path in sorted(folder.iterdir())
    }
    listing = Listing(kind=kind, version=__version__, files=files)
    write_json(folder / FILE, listing.model_dump(mode="json"))
    return kind


def _lay_out_bank(path: Path, folder: Path) -> None:
    report = verify_bank(path)
    if report.problems:
        raise UserError(f"{path} is not sound: {report.problems[0]}", report.remedy)
    stem = path.name.removesuffix(".parquet").removesuffix(".bank")
    name = f"{stem}{_BANK_SUFFIX}"
    if not is_plain_name(name):
        raise UserError(f"{path.name} is no plain name.", "Letters, digits, hyphens and dots only.")
    shutil.copyfile(path, folder / name)
    # which of the files is the data set, for readers that know nothing of aape
    head = f"---\nconfigs:\n- config_name: default\n  data_files: {name}\ntags: [aape]\n---\n"
    write_text(folder / _CARD, head + bank_card(PromptBank.open(path)))


def read_listing(path: Path, kind: str) -> Listing:
    """Read the listing of a repository and check what it names.

    Raises:
        UserError: it is none, is of another kind, or names what a run or bank does not have.
    """
    listing = Listing.parse(read_json(path), FILE)
    if listing.kind != kind:
        raise UserError(f"The repository holds a {listing.kind!r}, not a {kind}.")
    names = set(listing.files)
    if kind == RUN:
        wanted = names == set(FILES)
    else:
        banks = names - {_CARD}
        wanted = len(banks) == 1 and all(
            name.endswith(_BANK_SUFFIX) and is_plain_name(name) for name in banks
        )
    if not wanted:
        raise UserError(
            f"The repository lists other files than a {kind} has: {', '.join(sorted(names))[:200]}."
        )
    return listing


def check_pulled(folder: Path, listing: Listing) -> None:
    """Check every file that was pulled: its checksum, then what it says.

    Raises:
        UserError: a file is not what was pushed, or names a place on a machine.
    """
    for name, entry in listing.files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{name} did not arrive as a file.")
        if path.stat().st_size != entry.size or hash_file(path) != entry.sha256:
            raise UserError(
                f"{name} is not the file that was pushed: its checksum does not agree.",
                "Pull again; if it stays so, ask whoever pushed it.",
            )
    if listing.kind == RUN:
        _check_run(folder)
        return
    bank = next(folder / name for name in listing.files if name.endswith(_BANK_SUFFIX))
    report = verify_bank(bank)
    if report.problems:
        raise UserError(f"The bank {bank.name} is not sound: {report.problems[0]}")


def _check_run(folder: Path) -> None:
    config = Config.from_yaml(folder / "config.yaml")
    _, about = RunFolder.open(folder).load_weights()
    if placeless_config(config) != config or placeless(about) != about:
        raise UserError("The run names places on a machine, which no pushed run does.")

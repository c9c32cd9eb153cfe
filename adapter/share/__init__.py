"""Runs and banks to a model hub and back; what comes back is a stranger's."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...pipeline.errors import UserError
from ...pipeline.files import atomic_folder, writing
from ...pipeline.leftovers import temporary_folder
from .contents import BANK, FILE, RUN, check_pulled, lay_out, read_listing
from .hub import Hub

__all__ = ["Pushed", "pull", "push"]
Kind = Literal["", "run", "bank"]
_LISTING_BYTES = 1_000_000


@dataclass(frozen=True)
class Pushed:
    """Where something was pushed, or was pulled to."""

    kind: str
    repository: str
    commit: str
    place: str

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        return asdict(self)


def push(
    thing: str | Path,
    repository: str,
    *,
    private: bool = False,
    message: str = "",
) -> Pushed:
    """Push a run or a bank to a hub, with a card and a checksum of every file.

    Of a run goes what ``aape export --format folder`` writes. A bank becomes a data set that
    ``datasets.load_dataset`` reads. The hub is that of ``HF_ENDPOINT``, the token that of ``hf auth
    login`` or ``HF_TOKEN``.

    Args:
        thing: a run folder, or a bank (``*.parquet``).
        repository: ``OWNER/NAME``; made if absent.
        private: make it for yourself alone. message: of the commit.

    Raises:
        UserError: it is neither, or the hub refuses.
    """
    hub = Hub(repository)
    with tempfile.TemporaryDirectory(prefix="aape-push-") as folder:
        kind = lay_out(Path(thing), Path(folder))
        commit, place = hub.upload(kind, Path(folder), private, message or f"A {kind} of aape")
    return Pushed(kind, repository, commit, place)


def pull(
    repository: str,
    out: str | Path | None = None,
    *,
    kind: Kind = "",
    revision: str = "",
    max_gigabytes: float = 20.0,
) -> Pushed:
    """Pull a run or a bank that somebody pushed.

    Only files that a run or a bank has are taken, of one commit, each by its checksum; none is
    code, and none may name a place on a machine.

    Args:
        repository: ``OWNER/NAME``. out: a folder that is absent or empty, by default ``NAME``.
        kind: ``run`` or ``bank``; by default whichever is there, a run first.
        revision: a branch, tag or commit; by default the newest.
        max_gigabytes: more is refused before it is downloaded.

    Raises:
        UserError: there is no such thing, ``out`` is in use, or what came is not what it says.
    """
    if kind not in ("", RUN, BANK):
        raise UserError(f"Unknown kind {kind!r}.", "Known: run, bank.")
    hub = Hub(repository)
    target = Path(out) if out is not None else Path(repository.split("/")[-1])
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already.", "Name another place with --out.")
    found, commit = hub.find([kind] if kind else [RUN, BANK], revision)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    folder = temporary_folder(target)
    try:
        listing_file = hub.download(found, FILE, commit, folder, _LISTING_BYTES)
        listing = read_listing(listing_file, found)
        total = sum(entry.size for entry in listing.files.values())
        if total > max_gigabytes * 1e9:
            raise UserError(
                f"{repository} has {total / 1e9:.1f} GB; the limit is {max_gigabytes:g}.",
                "Raise it with --max-gigabytes.",
            )
        inside = folder / "pulled"
        for name, entry in listing.files.items():
            hub.download(found, name, commit, inside, entry.size)
        check_pulled(inside, listing)
        with atomic_folder(target) as whole:  # all of it or nothing, also when it is killed here
            for name in listing.files:
                (inside / name).replace(whole / name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Pushed(found, repository, commit, str(target))

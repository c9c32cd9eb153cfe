"""By which column and rule the tables of one data set find their photos, each in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import UserError
from ..hints import Hints
from .cells import text_of
from .columns import NUMBERS, PATHS, candidates, named, no_columns
from .image_paths import Placement, find_placement, split_of_folder, split_of_table
from .text_tables import TextTable


def without_climbing(folder: str) -> str:
    """Return a folder below the parent of the root, of which it was said from the root."""
    return folder.removeprefix("..").lstrip("/") or "."


def placed(
    files: Sequence[Path],
    read: Sequence[TextTable],
    names: list[str],
    hints: Hints,
    where: Path,
) -> tuple[str, list[Placement]]:
    """Return the column of paths, and the rules by which the photos of each file are found."""
    if hints.path_column:
        possible = [named(hints.path_column, names, where)]
    else:
        possible = candidates(names, PATHS)
    first = ""
    for column in possible:
        found: list[Placement | None] = []
        for file, table in zip(files, read):
            texts = [text for row in table.rows if (text := text_of(row.get(column)))]
            first = first or (texts[0] if texts else "")
            found.append(find_placement(file.parent, texts, file.name) if texts else None)
        rule = next((place for place in found if place is not None), None)
        if rule is not None:
            # one rule, but a folder for each file: train.csv of train/, test.csv of test/
            own = [place and rule._replace(folder=place.folder) == place for place in found]
            placed = [place if fits and place else rule for place, fits in zip(found, own)]
            return column, placed
    if not any(table.rows for table in read):
        raise UserError(f"{where} has no rows.")
    if not set(possible) - set(candidates(names, NUMBERS)):
        raise no_columns(where, names, has_path=False)
    if not first:
        raise UserError(f"{where} has rows without a {possible[0]!r}.", "Fill or remove them.")
    raise UserError(
        f"None of the first images of {where} is there ({_short(files[0].parent / first)}, …).",
        "Paths are relative to the folder of the table; --path-column names another column.",
    )


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 200 else f"{text[:200]} …"


def images_of_files(
    files: Sequence[str], placements: Sequence[Placement], climbing: bool
) -> dict[str, str]:
    """Return the folder of the photos of each file, where not all have the same."""
    folders = [place.folder for place in placements]
    if len(set(folders)) == 1:
        return {}
    return {f: without_climbing(p) if climbing else p for f, p in zip(files, folders)}


def contradictions(files: Iterable[str], placements: Sequence[Placement]) -> list[str]:
    """Say which tables are named like one split and find their photos in that of another."""
    pairs = [
        (file, place.folder, split_of_table(Path(file).stem), split_of_folder(place.folder))
        for file, place in zip(files, placements)
    ]
    return [
        f"the photos of {file} were found in {folder!r} only"
        for file, folder, said, found in pairs
        if said and found and said != found
    ]

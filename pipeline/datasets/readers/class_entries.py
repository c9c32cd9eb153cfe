"""Class entries from what folders and labels are called: readable, each with its folder."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from ...errors import UserError
from ..manifest import ClassEntry


def readable_name(name: str) -> str:
    """Turn the name of a folder into that of a class: no leading number, no underscores.

    >>> readable_name("001.Black_footed_Albatross"), readable_name("3.5 mm")
    ('Black footed Albatross', '3.5 mm')
    """
    return re.sub(r"^\d+\.(?=[^\W\d])", "", name).replace("_", " ").strip() or name


def entry_of(folder: str, *, path: bool = True, aliases: list[str] | None = None) -> ClassEntry:
    """Return the class entry of a folder, whose path may have several parts, or of a label.

    The folder is always written down, so that the name can be edited.

    Raises:
        UserError: the name is not valid text.
    """
    for name in (folder, *(aliases or [])):
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(f"The name {name!r} is not valid UTF-8.", "Rename it.") from error
    name = readable_name(folder.rpartition("/")[2] if path else folder)
    return ClassEntry(name=name, folder=folder, aliases=aliases or [])


def entries_of(
    counts: Mapping[str, int], *, path: bool = True
) -> tuple[list[ClassEntry], list[str]]:
    """Return one entry a class, in the order of their names, and a remark on those merged.

    Names that differ in case alone are one class, under the spelling that is most frequent.
    """
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        spellings[name.casefold()].append(name)
    remarks = [
        f"{', '.join(map(repr, some))} differ in case alone and are one class, {some[0]!r}"
        for some in spellings.values()
        if len(some) > 1
    ]
    chosen = sorted(spellings.values(), key=lambda some: some[0])
    entries = [entry_of(some[0], path=path, aliases=some[1:]) for some in chosen]
    return entries, remarks


def numbered_entries(names: list[str]) -> list[ClassEntry]:
    """Return the entries of classes that are told apart by number; a name may occur twice."""
    seen = Counter[str]()
    entries = []
    for name in names:
        seen[name] += 1
        folder = name if seen[name] == 1 else f"{name} ({seen[name]})"
        entries.append(ClassEntry(name=readable_name(name), folder=folder))
    return entries

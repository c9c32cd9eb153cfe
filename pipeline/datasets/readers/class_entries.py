"""Class entries from what folders and labels are called: readable, each with its folder."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import count

from ...errors import UserError
from ..manifest import ClassEntry
from .cells import text_of


def same_name(name: str) -> str:
    """Return what names share that are one class: case and the way to write accents are no part.

    >>> same_name("Cafe\u0301") == same_name("CAF\u00c9")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


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
    name = unicodedata.normalize("NFC", name)
    return ClassEntry(name=name, folder=folder, aliases=aliases or [])


def entries_of(
    counts: Mapping[str, int], *, path: bool = True
) -> tuple[list[ClassEntry], list[str]]:
    """Return one entry a class, in the order of their names, and a remark on those merged.

    Names that differ in case alone, or in how accents are written, are one class, under the
    spelling that is most frequent. Names that would read the same otherwise are kept apart.
    """
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        spellings[same_name(name)].append(name)
    remarks = [
        f"{', '.join(map(repr, some))} differ in {_difference(some)} alone and are one class,"
        f" {some[0]!r}"
        for some in spellings.values()
        if len(some) > 1
    ]
    chosen = sorted(spellings.values(), key=lambda some: some[0])
    entries = [entry_of(some[0], path=path, aliases=some[1:]) for some in chosen]
    entries, apart = told_apart(entries, path=path)
    return entries, remarks + apart


def _difference(spellings: list[str]) -> str:
    composed = {unicodedata.normalize("NFC", name) for name in spellings}
    if len(composed) == len(spellings):
        return "case"
    return "the way to write accents" if len(composed) == 1 else "case and the way to write accents"


def told_apart(
    entries: list[ClassEntry], *, path: bool = True
) -> tuple[list[ClassEntry], list[str]]:
    """Give classes that read the same the names of their folders, and say so.

    >>> found, remarks = told_apart([entry_of("1.cat"), entry_of("2.cat"), entry_of("dog")])
    >>> [entry.name for entry in found], remarks
    (['1.cat', '2.cat', 'dog'], ["'1.cat', '2.cat' would all be called 'cat' and keep these names"])
    """
    alike: defaultdict[str, list[int]] = defaultdict(list)
    for i, entry in enumerate(entries):
        alike[same_name(entry.name)].append(i)
    found, remarks = list(entries), []
    for some in alike.values():
        if len(some) == 1:
            continue
        names = whole = [entries[i].folder for i in some]
        last = [folder.rpartition("/")[2] for folder in whole]
        if path and len(set(map(same_name, last))) == len(last):
            names = last
        for i, name in zip(some, names):
            found[i] = entries[i].model_copy(update={"name": unicodedata.normalize("NFC", name)})
        shown = ", ".join(map(repr, names[:4])) + (", …" if len(names) > 4 else "")
        remarks.append(
            f"{shown} would all be called {entries[some[0]].name!r} and keep these names"
        )
    return found, remarks


def numbered_entries(names: list[str], where: object) -> tuple[list[ClassEntry], list[str]]:
    """Return the entries of classes that are told apart by number; a name may occur twice.

    Raises:
        UserError: a name is empty.
    """
    names = [text_of(name) for name in names]
    if not all(names):
        raise UserError(
            f"{where} has a class without a name, that of the number {names.index('')}.",
            "Give every class a name.",
        )
    taken, seen = set(names), set[str]()
    folders: list[str] = []
    for name in names:
        folder = name
        if name in seen:
            folder = next(f for n in count(2) if (f := f"{name} ({n})") not in taken)
        seen.add(name)
        taken.add(folder)
        folders.append(folder)
    # a name that occurs twice stays as it is: a number in it would go into the texts of the class
    first = dict(zip(reversed(names), reversed(folders)))
    unlike, remarks = told_apart([entry_of(first[n], path=False) for n in first], path=False)
    called = {name: entry.name for name, entry in zip(first, unlike)}
    entries = [
        entry_of(folder, path=False).model_copy(update={"name": called[name]})
        for name, folder in zip(names, folders)
    ]
    twice = [name for name, n in Counter(names).items() if n > 1]
    return entries, remarks + [
        f"several classes are called {name!r}, and are told apart by their numbers"
        for name in twice[:5]
    ]

"""Published prompt files: the shapes they come in, and which class each of their names means.

Read are: CuPL, LaFTer, HPT and VDT (``{class: [sentence, …]}``, also with a level of queries in
between), CoPrompt (``{class: sentence}``), classify-by-description and WaffleCLIP
(``{class: [descriptor, …]}``), the structured files of HPT (entities and their relations), and
tables with a class and a text a row, such as ``aape bank export --format csv`` writes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ..datasets.manifest import Manifest
from ..datasets.readers.cells import text_of
from ..datasets.readers.columns import candidates
from ..datasets.readers.text_tables import read_text_table
from ..errors import UserError, unknown_name
from ..files import read_json
from ..formulas import original

Format = Literal["sentences", "sentence", "descriptors", "structure", "table"]
FORMATS: tuple[str, ...] = get_args(Format)
# What the methods call themselves, for --format.
_METHODS: dict[str, Format] = {
    "cupl": "sentences",
    "lafter": "sentences",
    "hpt": "sentences",
    "vdt": "sentences",
    "coprompt": "sentence",
    "classify-by-description": "descriptors",
    "waffleclip": "descriptors",
    "hpt-structure": "structure",
}
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
_RELATIONS = (
    ("Entity-to-Entity Relationships", "entity1", "entity2"),
    ("Entity-to-Attribute Relationships", "entity", "attribute"),
)


@dataclass
class Published:
    """A file as read: the texts under each of its names, in its order."""

    path: Path
    format: Format
    texts: dict[str, list[str]]


@dataclass
class Match:
    """Which class each name of a file means.

    ``ids`` maps a name to class ids: several where a data set repeats a name, none where nothing
    matches. ``missing`` are the classes without texts.
    """

    ids: dict[str, list[int]] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)

    @property
    def unmatched(self) -> list[str]:
        """The names of the file that match no class."""
        return [name for name, ids in self.ids.items() if not ids]


def read_published(path: str | Path, kind: str = "auto") -> Published:
    """Read a published file; ``kind`` is a format, a method's name, or ``auto``.

    Raises:
        UserError: the file is absent, is not JSON, or has another shape.
    """
    path = Path(path)
    if kind != "auto" and kind not in (*FORMATS, *_METHODS):
        raise unknown_name("format", kind, ["auto", *FORMATS, *_METHODS])
    if kind == "table" or (kind == "auto" and path.suffix.lower() in _TABLES):
        return _read_table(path)
    values = read_json(path)
    if not isinstance(values, dict) or not values:
        raise UserError(
            f"{path} is not a file of prompts: it must map class names to texts.",
            f"Known formats: {', '.join(FORMATS)}.",
        )
    found = cast(Format, _METHODS.get(kind, kind))
    try:
        if kind == "auto":
            found = _detect(values)
        texts = {name: list(_texts(name, value, found)) for name, value in values.items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} does not have the format {found!r} ({error}).",
            f"Name its format with --format: {', '.join((*FORMATS, *_METHODS))}.",
        ) from error
    if not any(texts.values()):
        raise UserError(f"{path} holds no texts.")
    return Published(path, found, texts)


def _read_table(path: Path) -> Published:
    """Read a table with a class and a text a row: a bank's own export, or one made by hand.

    Of a bank's export the kept prompts are taken.
    """
    table = read_text_table(path)
    names = candidates(table.columns, ("class_name", "class", "label", "name"))
    texts = candidates(table.columns, ("text", "prompt", "caption", "description", "sentence"))
    if not names or not texts:
        raise UserError(
            f"{path} has no columns for class names and texts.",
            f"Name them class_name and text; its columns: {', '.join(table.columns)}.",
        )
    found: dict[str, list[str]] = {}
    for row in table.rows:
        text = original(text_of(row.get(texts[0])))
        if text and text_of(row.get("verdict", "kept")) == "kept":
            found.setdefault(original(text_of(row.get(names[0]))), []).append(text)
    if not found:
        raise UserError(f"{path} holds no texts.")
    return Published(path, "table", found)


def _detect(values: dict[str, Any]) -> Format:
    texts: list[str] = []
    for value in values.values():
        if isinstance(value, str):
            return "sentence"
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "structure"
        texts += [text for text in _flat(value) if text.strip()]
    # Descriptors are "long tail", "has a red beak": short, and without a full stop.
    ended = sum(text.rstrip().endswith((".", "!", "?")) for text in texts)
    words = sum(len(text.split()) for text in texts)
    if texts and ended < 0.2 * len(texts) and words < 10 * len(texts):
        return "descriptors"
    return "sentences"


def _texts(name: str, value: Any, kind: Format) -> Iterator[str]:
    if kind == "structure":
        for part in value:
            yield from _relations(part)
    elif kind == "descriptors":
        for text in _flat(value):
            if text.strip():
                yield descriptor_sentence(name, text.strip())
    else:
        yield from (text.strip() for text in _flat(value) if text.strip())


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _flat(part)
    elif isinstance(value, list):
        for part in value:
            yield from _flat(part)
    else:
        raise TypeError(f"a {type(value).__name__} among the texts")


def _relations(part: dict[str, Any]) -> Iterator[str]:
    """Turn the relations of an HPT structure into short sentences."""
    for group, subject, other in _RELATIONS:
        for relation in part.get(group, []):
            text = f"{relation[subject]} {relation['relationship']} {relation[other]}".strip()
            yield f"{text[:1].upper()}{text[1:]}."


def descriptor_sentence(name: str, descriptor: str) -> str:
    """Join a class name and a descriptor as classify-by-description does (Menon & Vondrick 2023).

    >>> descriptor_sentence("hen", "has a red comb"), descriptor_sentence("hen", "short beak")
    ('hen, which has a red comb', 'hen, which has short beak')
    """
    if descriptor.startswith(("a", "used")):
        return f"{name}, which is {descriptor}"
    if descriptor.startswith(("has", "often", "typically", "may", "can")):
        return f"{name}, which {descriptor}"
    return f"{name}, which has {descriptor}"


def match_names(names: Iterable[str], manifest: Manifest) -> Match:
    """Find the class of every name, by stricter rules first: see :func:`_keys`.

    A rule counts only where it points to classes of one name; what is left of a name that two
    different classes share is unmatched.
    """
    names = list(names)
    tables: list[dict[str, set[int]]] = [{} for _ in _RULES]
    for class_id, entry in enumerate(manifest.classes):
        spellings = [entry.name, *entry.aliases, *([entry.folder] if entry.folder else [])]
        for spelling in spellings:
            for table, key in zip(tables, _keys(spelling)):
                table.setdefault(key, set()).add(class_id)
    match = Match()
    taken: set[int] = set()
    for name in names:
        match.ids[name] = []
    for rule, table in zip(_RULES, tables):
        for name in names:
            if match.ids[name]:
                continue
            ids = table.get(_keys(name)[_RULES.index(rule)], set()) - taken
            if ids and len({manifest.class_names[i] for i in ids}) == 1:
                match.ids[name] = sorted(ids)
                match.how[name] = rule
        taken |= {i for ids in match.ids.values() for i in ids}
    match.missing = [i for i in range(len(manifest.classes)) if i not in taken]
    return match


_RULES = ("same name", "same letters", "same words", "same word stems")


def _keys(name: str) -> tuple[str, str, str, str]:
    """Return the name as each rule sees it.

    The same name; the same letters and digits whatever stands between them ("Shih-Tzu", "shih
    tzu"); the same words in any order ("2012 Audi TT", "Audi TT 2012"); the same words without
    plurals, brackets and little words ("kite (bird of prey)", "kite").
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode() or name
    # "AudiTT" and "annual_crop" are several words
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain).casefold()
    words = re.findall(r"[a-z0-9]+", plain.casefold()) or [plain]
    parts = re.findall(r"[a-z]+|[0-9]+", split) or words
    outside = re.sub(r"\(.*?\)", " ", split)
    stems = re.findall(r"[a-z]+|[0-9]+", outside) or parts
    little = {"the", "a", "an", "of", "or", "and"}
    bare = [word[:-1] if word.endswith("s") else word for word in stems if word not in little]
    return (name, "".join(words), " ".join(sorted(parts)), " ".join(sorted(bare or stems)))

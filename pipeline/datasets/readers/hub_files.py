"""Which files of a Hugging Face folder belong to which split, and to which configuration."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ...config import load_yaml
from ...errors import UserError
from ...files import require_regular
from ..hints import LEFT_OUT, Hints, SplitOrNone, resolve_split, split_word
from ..records import Split

# "train-00000-of-00001.parquet", "train-0.parquet", with or without a fingerprint behind it
_NUMBERED = re.compile(r"(?P<word>.+?)[-_.]\d+(-of-\d+)?(-[0-9a-f]{6,})?")
_FRONT = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
_PLAIN_WORDS = frozenset(("data", "part", "dataset", "shard", "default", "file", "batch"))


def hub_files(
    root: Path, endings: tuple[str, ...], hints: Hints
) -> tuple[dict[Split, list[str]], list[str]]:
    """Return the files of every split, relative to the root, and remarks.

    The front matter of ``README.md`` decides where it names files; otherwise names of files and
    folders do, as on the hub.

    Raises:
        UserError: there are several configurations, or a split that is not known, and nobody said
            what is meant.
    """
    files = [path.relative_to(root).as_posix() for path in sorted(_below(root, endings))]
    stated = _stated(root, files)
    by_configuration: dict[str, list[tuple[str, str]]] = {}
    for file in files if not stated else ():
        configuration, split = _by_name(root, file)
        by_configuration.setdefault(configuration, []).append((split, file))
    configurations = stated or by_configuration
    chosen = _choose(root, configurations, hints)
    found: dict[Split, list[str]] = {}
    remarks = []
    names = {split for split, _ in chosen}
    for split_name, file in chosen:
        split = _resolve(split_name, names, hints, root)
        if split != LEFT_OUT:
            found.setdefault(split, []).append(file)
    left_out = sorted(n for n in names if n and _resolve(n, names, hints, root) == LEFT_OUT)
    remarks += [f"the split {name!r} was left out" for name in left_out]
    if not found and chosen:
        raise UserError(f"No split of {root} is left.", "Keep one with --split-as NAME=train.")
    return found, remarks


def _below(root: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    for path in root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        wanted = path.name.lower().endswith(endings) and not path.name.startswith("cache-")
        if wanted and not hidden and path.is_file():
            yield path


def _resolve(name: str, names: set[str], hints: Hints, root: Path) -> SplitOrNone:
    if name in hints.split_as:
        return hints.split_as[name]
    if not name or (len(names) == 1 and split_word(name) is None):
        return "train"  # one split of whatever name is all there is: it is split here
    return resolve_split(name, hints.split_as, root)


def _by_name(root: Path, file: str) -> tuple[str, str]:
    """Return configuration and split of a file by its path; empty where it tells neither."""
    folders, _, name = file.rpartition("/")
    parents = folders.split("/") if folders else []
    stem = name.partition(".")[0]
    match = _NUMBERED.fullmatch(stem)
    word = match.group("word") if match else stem
    split = ""
    if split_word(word):
        split = word
    elif (parents and split_word(parents[-1])) or (
        parents and (root / "dataset_dict.json").is_file()
    ):
        split = parents.pop()
    elif match and "-of-" in stem and word.casefold() not in _PLAIN_WORDS:
        split = word
    configuration = "/".join(part for part in parents if part.casefold() not in _PLAIN_WORDS)
    return configuration, split


def _stated(root: Path, files: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Return configurations, splits and files as the front matter of the data card states them."""
    found: dict[str, dict[tuple[str, str], None]] = {}
    for configuration in _front_matter(root / "README.md"):
        if isinstance(configuration, dict):
            name = str(configuration.get("config_name", "default"))
            # a file that two patterns name is one file
            found.setdefault(name, {}).update(dict.fromkeys(_named(configuration, root, files)))
    return {name: list(some) for name, some in found.items() if some}


def _named(
    configuration: dict[str, Any], root: Path, files: list[str]
) -> Iterator[tuple[str, str]]:
    """Yield split and file as one configuration states them.

    ``data_files`` is a pattern, a list of patterns, or a list of ``{split, path}``; patterns are
    relative to ``data_dir``. Without them all files of ``data_dir`` are meant.
    """
    folder = _parts(str(configuration.get("data_dir") or ""))
    entries = configuration.get("data_files")
    if entries is None and folder:
        for file in files:
            if _parts(file)[: len(folder)] == folder:
                rest = "/".join(_parts(file)[len(folder) :])
                yield _by_name(root.joinpath(*folder), rest)[1], file
    for entry in entries if isinstance(entries, list) else [entries]:
        stated = entry if isinstance(entry, dict) else {"path": entry}
        split, patterns = str(stated.get("split", "train")), stated.get("path")
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            if isinstance(pattern, str):
                wanted = folder + _parts(pattern)
                yield from ((split, file) for file in files if _fits(_parts(file), wanted))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _fits(file: list[str], pattern: list[str]) -> bool:
    """Say whether a path is one of a pattern, in which only ``**`` goes through folders."""
    if not pattern:
        return not file
    if pattern[0] == "**":
        return _fits(file, pattern[1:]) or (bool(file) and _fits(file[1:], pattern))
    here = bool(file) and fnmatch.fnmatchcase(file[0], pattern[0])
    return here and _fits(file[1:], pattern[1:])


def _front_matter(card: Path) -> list[Any]:
    try:
        require_regular(card)
        text = card.read_text(encoding="utf-8-sig") if card.is_file() else ""  # no pipe
    except (OSError, UnicodeDecodeError, UserError):
        return []
    found = _FRONT.match(text)
    try:
        values = load_yaml(found[1]) if found else None
    except (yaml.YAMLError, ValueError):  # ValueError: such as the date 2026-99-99
        return []
    configurations = values.get("configs") if isinstance(values, dict) else None
    return configurations if isinstance(configurations, list) else []


def _choose(
    root: Path, configurations: dict[str, list[tuple[str, str]]], hints: Hints
) -> list[tuple[str, str]]:
    names = sorted(configurations)
    if hints.configuration:
        if hints.configuration not in configurations:
            raise UserError(
                f"{root} has no configuration {hints.configuration!r}.",
                f"It has: {', '.join(names) or 'none'}.",
            )
        return configurations[hints.configuration]
    if len(names) > 1:
        raise UserError(
            f"{root} has {len(names)} configurations: {', '.join(name or '.' for name in names)}.",
            f"Choose one with --configuration {next(filter(None, names))}.",
        )
    return configurations[names[0]] if names else []

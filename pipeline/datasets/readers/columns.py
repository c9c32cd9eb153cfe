"""Which column of a table holds what: by the names that people give them, or as the user says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import UserError
from ..hints import Hints

# Compared without case, blanks and punctuation, in this order; "articleType" is "article_type".
PATHS = (
    "path", "file_name", "filename", "image_path", "filepath", "file_path", "image_file",
    "image_filename", "image_name", "img_path", "img_name", "file", "image", "img", "picture",
    "photo", "image_url", "url", "uri", "image_id", "id",
)  # fmt: skip
NUMBERS = ("image_id", "id")  # paths only where files are called so
# names before numbers: "label_name" beside "label" is what a language model can read
LABELS = (
    "class_name", "label_name", "category_name", "classname", "label", "labels", "class",
    "category", "target", "fine_label", "fine_labels", "article_type", "choice", "ground_truth",
    "species", "breed", "variety", "cls", "y",
)  # fmt: skip
CAPTIONS = (
    "caption", "captions", "text", "texts", "description", "descriptions", "comment", "sentence",
    "sentences", "raw", "image_caption", "image_description", "alt_text",
)  # fmt: skip
SPLITS = ("split", "subset", "partition", "set", "data_set", "fold_name")
IMAGES = ("image", "img", "picture", "photo", "jpg", "png", "webp", "image_bytes", "bytes")


@dataclass(frozen=True)
class Columns:
    """The columns that matter; an empty name is a column that is not there."""

    path: str
    label: str
    captions: tuple[str, ...]
    split: str

    @property
    def wanted(self) -> list[str]:
        """Every column that is read."""
        return [name for name in (self.path, self.label, *self.captions, self.split) if name]


def plain_column(name: str) -> str:
    """Return the name of a column without case, blanks, punctuation and humps.

    >>> plain_column(" articleType"), plain_column("File Name"), plain_column("ID")
    ('article_type', 'file_name', 'id')
    """
    humps = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", humps.casefold()).strip("_")


def candidates(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the columns whose names are known, in the order of what is known."""
    by_plain: dict[str, str] = {}
    for name in names:
        by_plain.setdefault(plain_column(name), name)
    return [by_plain[word] for word in known if word in by_plain]


def named(column: str, names: Sequence[str], where: object) -> str:
    """Return the column that a user named, whatever the case and blanks.

    Raises:
        UserError: there is none.
    """
    if column in names:
        return column
    for name in names:
        if plain_column(name) == plain_column(column):
            return name
    raise UserError(f"{where} has no column {column!r}.", f"Its columns: {', '.join(names)}.")


def find_columns(names: Sequence[str], hints: Hints, where: object, path: str = "") -> Columns:
    """Return the columns of label, captions and split; ``path`` is chosen by the caller.

    Raises:
        UserError: a column that the user named is not there.
    """
    others = [name for name in names if name != path]
    if hints.label_column == "none":
        label = ""
    elif hints.label_column:
        label = named(hints.label_column, names, where)
    else:
        label = next(iter(candidates(others, LABELS)), "")
    if hints.caption_columns:
        captions = tuple(named(name, names, where) for name in hints.caption_columns)
    else:
        captions = tuple(candidates(others, CAPTIONS)[:1]) or numbered(others)
    if hints.split_column:
        no_split = hints.split_column == "none" and "none" not in names
        split = "" if no_split else named(hints.split_column, names, where)
    else:
        split = next(iter(candidates(others, SPLITS)), "")
    return Columns(path, label, captions, split)


def numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns ``caption_0``, ``caption_1``, … in the order of their numbers."""
    found = []
    for name in names:
        match = re.fullmatch(r"(.+?)_?(\d{1,9})", plain_column(name))
        if match and match.group(1) in CAPTIONS:
            found.append((int(match.group(2)), name))
    return tuple(name for _, name in sorted(found))


def no_columns(where: object, names: Sequence[str], has_path: bool) -> UserError:
    """Build the error for a table in which nothing is known but its columns."""
    what = "labels or captions" if has_path else "paths and labels"
    return UserError(
        f"{where} has no columns for {what} that are known by their names.",
        "Name them with --path-column and --label-column or --caption-column; its columns:"
        f" {', '.join(map(str, names))}.",
    )

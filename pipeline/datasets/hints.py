"""What a user says about a source where it does not tell: columns, splits, configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import UserError
from .records import Split

LEFT_OUT: Literal["none"] = "none"
SplitOrNone = Split | Literal["none"]

# What people call their splits.
SPLIT_WORDS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "restval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
}
# words beside a split in the name of a folder or file: "training_set", "seg_train", "train_images"
_BESIDE = frozenset(
    [
        "set",
        "data",
        "dataset",
        "images",
        "image",
        "imgs",
        "img",
        "photos",
        "pictures",
        "seg",
        "labels",
        "split",
        "folder",
        "classes",
    ]
)


@dataclass(frozen=True)
class Hints:
    """The options of ``aape datasets add`` that say what a table or folder does not.

    Attributes:
        path_column: column of the photos' paths, or of the photos themselves.
        label_column: column of the classes.
        caption_columns: columns of the captions.
        split_column: column of the splits; ``none`` if there is one that means something else.
        split_as: what an unknown split is: train, val, test, or none to leave it out.
        configuration: which of several configurations of a data set.
        skip_missing: leave out rows whose photo is not there.
    """

    path_column: str = ""
    label_column: str = ""
    caption_columns: tuple[str, ...] = ()
    split_column: str = ""
    split_as: Mapping[str, SplitOrNone] = field(default_factory=dict)
    configuration: str = ""
    skip_missing: bool = False

    @classmethod
    def parse_split_as(cls, words: Iterable[str]) -> dict[str, SplitOrNone]:
        """Parse ``NAME=SPLIT``, as the command line has it.

        >>> Hints.parse_split_as(["unsupervised=none", "dev2=val"])
        {'unsupervised': 'none', 'dev2': 'val'}
        """
        found: dict[str, SplitOrNone] = {}
        for word in words:
            name, equals, split = word.rpartition("=")
            if not equals or split not in ("train", "val", "test", "none"):
                raise UserError(
                    f"{word!r} does not say what a split is.",
                    "Write NAME=train, NAME=val, NAME=test, or NAME=none to leave it out.",
                )
            found[name] = split
        return found


def split_word(name: str) -> Split | None:
    """Return the split that a name means, or None.

    >>> split_word("Training_set"), split_word("seg-test"), split_word("trains")
    ('train', 'test', None)
    """
    words = [word for word in re.split(r"[\W_]+", name.strip().casefold()) if word]
    splits: list[Split] = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
    others = [word for word in words if word not in SPLIT_WORDS and word not in _BESIDE]
    return splits[0] if len(splits) == 1 and not others else None


def resolve_split(value: Any, split_as: Mapping[str, SplitOrNone], where: object) -> SplitOrNone:
    """Return what the name of a split means.

    Raises:
        UserError: nobody said so.
    """
    name = str(value).strip()
    for said in (name, name.casefold()):
        if said in split_as:
            return split_as[said]
    found = split_word(name)
    if found is None:
        raise UserError(
            f"{where} has the split {name!r}, which is none of train, val and test.",
            f"Say what it is with --split-as {name}=train (or val, test; none leaves it out).",
        )
    return found

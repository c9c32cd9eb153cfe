"""Which classes a prediction chooses among: by class id, since names may repeat.

c classes of the run's data set, d embedding width.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..pipeline.errors import UserError, require_text
from ..pipeline.progress import step
from .run_classes import trained_ids


@dataclass(frozen=True)
class AskedClass:
    """One class to choose.

    Attributes:
        name: in words. class_id: of the run's data set, or None for another.
        seen: position among the trained classes, or -1. label: the name, with the id if it repeats.
    """

    name: str
    class_id: int | None
    seen: int
    label: str


def asked_classes(
    about: Mapping[str, Any],
    classes: Sequence[str] = (),
    also: Sequence[str] = (),
    *,
    say: bool = True,
) -> list[AskedClass]:
    """Return the classes of a run that are asked for, each once.

    Args:
        about: the run's ``adapter_config.json``.
        classes: names or class ids; a name that several classes share stands for all of them. By
            default all of the run's data set.
        also: further names, of which no photo was ever seen.
        say: tell where a word is not exactly a name.

    Raises:
        UserError: fewer than one class is left, or a name is empty or no text.

    >>> about = {"all_class_names": ["missile", "crane", "missile"], "class_names": ["missile"],
    ...          "class_ids": [2]}
    >>> [(entry.label, entry.seen) for entry in asked_classes(about, ["missile"])]
    [('missile (class 0)', -1), ('missile (class 2)', 0)]
    """
    names: list[str] = list(about["all_class_names"])
    place = {class_id: i for i, class_id in enumerate(trained_ids(about))}
    found: dict[int | str, None] = {}
    tell = step if say else _silent
    for word in [*classes, *also]:
        _check_word(word)
    if not classes:
        found |= dict.fromkeys(range(len(names)))
    for word in classes:
        found |= dict.fromkeys(_meant(str(word), names, tell))
    for word in also:
        found |= dict.fromkeys(_meant(str(word), names, tell, ids=False))
    if not found:
        raise UserError("There is no class to choose.", "Name some with --class or --also.")
    known = [key for key in found if isinstance(key, int)]
    counts = Counter(names[key] for key in known)
    return [
        AskedClass(
            names[key],
            key,
            place.get(key, -1),
            names[key] if counts[names[key]] == 1 else f"{names[key]} (class {key})",
        )
        if isinstance(key, int)
        else AskedClass(key, None, -1, key)
        for key in found
    ]


def say_untrained(about: Mapping[str, Any], asked: Sequence[AskedClass]) -> str:
    """Say which of the run's classes were not trained; return the sentence, empty if all were."""
    names = [entry.label for entry in asked if entry.seen < 0 and entry.class_id is not None]
    if not names:
        return ""
    some = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
    protocol = str(about.get("protocol", "")).partition("/")[0]
    sentence = (
        f"{len(names)} of {len(about['all_class_names'])} classes were not trained in this run"
        f" ({protocol or 'its protocol'} holds them back), and are judged by their texts alone:"
        f" {some}. To train all: aape train … --protocol fewshot --shots all."
    )
    step(sentence)
    return sentence


def _loosely(name: str) -> str:
    """Return a name without case, and with blanks, hyphens and underscores alike."""
    return " ".join(re.split(r"[\s_-]+", name.casefold().strip()))


def _silent(_: str) -> None:
    pass


def _check_word(word: object) -> None:
    text = str(word)
    if not text.strip():
        raise UserError("The name of a class is empty.", "Write what it is called.")
    require_text(text, "The name of a class")


def _meant(
    word: str, names: Sequence[str], tell: Callable[[str], None], ids: bool = True
) -> list[int] | list[str]:
    """Return the class ids that a word means, or the word itself where it is another class."""
    same = [i for i, name in enumerate(names) if name == word]
    if same:
        return same
    if ids and word.isdecimal() and int(word) < len(names):
        return [int(word)]
    alike = [i for i, name in enumerate(names) if _loosely(name) == _loosely(word)]
    if alike:
        tell(f"{word!r} is taken for the class {names[alike[0]]!r}.")
        return alike
    if ids:
        tell(f"{word!r} is no class of the run's data set; it is judged by its name alone.")
    return [word]

"""Which classes a prediction chooses among: by class id, since names may repeat.

c classes of the run's data set, d embedding width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..pipeline.errors import UserError
from ..pipeline.progress import step


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
    about: Mapping[str, Any], classes: Sequence[str] = (), also: Sequence[str] = ()
) -> list[AskedClass]:
    """Return the classes of a run that are asked for, each once.

    Args:
        about: the run's ``adapter_config.json``.
        classes: names or class ids; a name that several classes share stands for all of them. By
            default all of the run's data set.
        also: further names, of which no photo was ever seen.

    Raises:
        UserError: fewer than one class is left.

    >>> about = {"all_class_names": ["missile", "crane", "missile"], "class_names": ["missile"],
    ...          "class_ids": [2]}
    >>> [(entry.label, entry.seen) for entry in asked_classes(about, ["missile"])]
    [('missile (class 0)', -1), ('missile (class 2)', 0)]
    """
    names: list[str] = list(about["all_class_names"])
    place = {class_id: i for i, class_id in enumerate(trained_ids(about))}
    found: dict[int | str, None] = {}
    for word in classes or map(str, range(len(names))):
        found |= dict.fromkeys(_meant(str(word), names))
    for word in also:
        found |= dict.fromkeys(_meant(str(word), names, ids=False))
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


def trained_ids(about: Mapping[str, Any]) -> list[int]:
    """Return the class ids that were trained; of older runs by their names, in their order.

    >>> trained_ids({"all_class_names": ["a", "b", "a"], "class_names": ["a", "a"]})
    [0, 2]
    """
    if "class_ids" in about:
        return [int(class_id) for class_id in about["class_ids"]]
    found: list[int] = []
    rest = list(enumerate(about["all_class_names"]))
    for name in about["class_names"]:
        chosen = next((i for i, other in rest if other == name and i not in found), None)
        if chosen is None:
            raise UserError(f"The run names a trained class {name!r} that its data set has not.")
        found.append(chosen)
    return found


def _meant(word: str, names: Sequence[str], ids: bool = True) -> list[int] | list[str]:
    """Return the class ids that a word means, or the word itself where it is another class."""
    same = [i for i, name in enumerate(names) if name == word]
    if same:
        return same
    if ids and word.isdecimal() and int(word) < len(names):
        return [int(word)]
    alike = [i for i, name in enumerate(names) if name.casefold() == word.casefold()]
    if alike:
        step(f"{word!r} is taken for the class {names[alike[0]]!r}.")
        return alike
    if ids:
        step(f"{word!r} is no class of the run's data set; it is judged by its name alone.")
    return [word]

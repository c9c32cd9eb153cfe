"""What is evaluated, by which rule. A protocol has a name and a version; results carry both.

A change of a rule gets a new version, so that figures under one name are always comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ...pipeline.errors import UserError, unknown_name
from ..metrics.accuracy import harmonic_mean
from .data import ClassificationData, ClassSet, LabelledImages


@dataclass(frozen=True)
class TestSet:
    """Images and the classes to tell apart. Labels are positions among those classes.

    Attributes:
        name: the column of the table, ``"base"`` for example.
        names: class names, for the details.
    """

    name: str
    images: LabelledImages
    classes: ClassSet
    names: list[str]


@dataclass(frozen=True)
class Protocol:
    """One evaluation rule.

    Attributes:
        name: as typed after ``--protocol``.
        version: raised whenever the rule changes.
        trains_on: all classes, or the first half (CoOp's base classes).
        columns: one per test set, in order; targets of another data set add theirs.
        summary: ``H`` is the harmonic mean of base and new, ``mean`` that of all targets, or none.
        rule: what a reader must know, in one sentence.
    """

    name: str
    version: int
    trains_on: Literal["all", "base"]
    columns: tuple[str, ...]
    summary: Literal["", "H", "mean"]
    rule: str

    @property
    def id(self) -> str:
        """Name and version, as results carry them."""
        return f"{self.name}/{self.version}"

    @property
    def best(self) -> str:
        """The metric that ranks methods."""
        return self.summary or self.columns[0]

    def trained_ids(self, data: ClassificationData) -> list[int]:
        """Return the class ids that are trained on.

        Raises:
            UserError: there is one class only.
        """
        ids = data.base_ids if self.trains_on == "base" else list(range(len(data.texts.names)))
        if len(ids) < 2:
            raise UserError(
                f"Protocol {self.name} trains on {len(ids)} class of {data.dataset}; it needs two.",
                "Choose the protocol fewshot, or a data set with more classes.",
            )
        return ids

    def metrics(self, targets: Sequence[ClassificationData] = ()) -> list[str]:
        """Return the columns of the table."""
        columns = [*self.columns, *(target.dataset for target in targets)]
        return [*columns, *([self.summary] if self.summary else [])]

    def summarise(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Return the ranking metric from the accuracies of the test sets, elementwise."""
        if self.summary == "H":
            base, new = values
            return 2 * base * new / np.maximum(base + new, 1e-12)
        if self.summary == "mean":
            return np.mean(values[len(self.columns) :], axis=0)
        return values[0]

    def row(self, values: dict[str, float]) -> dict[str, float]:
        """Add the summary to the accuracies of one seed."""
        if self.summary == "H":
            return values | {"H": harmonic_mean(values["base"], values["new"])}
        if self.summary == "mean":
            others = [value for name, value in values.items() if name not in self.columns]
            return values | {"mean": float(np.mean(others))}
        return values

    def test_sets(
        self,
        data: ClassificationData,
        targets: Sequence[ClassificationData] = (),
        *,
        new_classes: str = "bank",
        device: str = "cpu",
    ) -> list[TestSet]:
        """Return what to predict, in the order of the columns.

        Raises:
            UserError: the protocol needs other data sets and got none, or the reverse.
        """
        if bool(targets) != (self.name in ("cross-dataset", "domain")):
            need = "needs" if not targets else "has no"
            raise UserError(
                f"Protocol {self.name} {need} target data sets.",
                "Name them with --target, once for each."
                if not targets
                else "Leave out --target, or use --protocol cross-dataset or domain.",
            )
        seen = self.trained_ids(data)
        everything = list(range(len(data.texts.names)))

        def test_set(name: str, images_of: list[int], among: list[int]) -> TestSet:
            images = data.test.of(images_of)
            position = {class_id: i for i, class_id in enumerate(among)}
            labels = np.array([position[images_of[label]] for label in images.y], dtype=np.int64)
            classes = data.class_set(among, seen, new_classes, device)
            moved = replace(images, y=labels, views=None, before_views=None)
            return TestSet(name, moved, classes, [data.texts.names[i] for i in among])

        if self.name == "base2new":
            return [test_set("base", seen, seen), test_set("new", data.new_ids, data.new_ids)]
        if self.name == "generalized":
            return [
                test_set("base", seen, everything),
                test_set("new", data.new_ids, everything),
            ]
        source = [test_set(self.columns[0], everything, everything)]
        return source + [self._target(data, target, device) for target in targets]

    def _target(self, data: ClassificationData, target: ClassificationData, device: str) -> TestSet:
        """Return another data set's test images; in ``domain`` its classes are known."""
        ids = list(range(len(target.texts.names)))
        classes = target.class_set(ids, seen=[], device=device)
        if self.name == "domain":
            import torch

            where = target.texts.positions_in(data.texts)
            unknown = [name for name, i in zip(target.texts.names, where) if i is None]
            if unknown:
                raise UserError(
                    f"{target.dataset} has classes that {data.dataset} has not:"
                    f" {', '.join(map(repr, unknown[:5]))}.",
                    "Protocol domain is for the same classes in other pictures; use cross-dataset.",
                )
            seen = torch.tensor(where, device=device)
            classes = replace(classes, seen=seen)
        if target.encoder != data.encoder:
            raise UserError(
                f"{target.dataset} was embedded by {target.encoder!r}, {data.dataset} by"
                f" {data.encoder!r}.",
                "Embed both with the same encoder.",
            )
        return TestSet(target.dataset, target.test, classes, target.texts.names)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "fewshot", 1, "all", ("accuracy",), "",
            "trained and tested on all classes",
        ),
        Protocol(
            "base2new", 1, "base", ("base", "new"), "H",
            "trained on the first half of the classes; each half tested by itself (CoCoOp)",
        ),
        Protocol(
            "generalized", 1, "base", ("base", "new"), "H",
            "trained on the first half of the classes; images of each half classified among all",
        ),
        Protocol(
            "cross-dataset", 1, "all", ("source",), "mean",
            "trained on all classes of the source; targets have their own classes (CoCoOp)",
        ),
        Protocol(
            "domain", 1, "all", ("source",), "mean",
            "trained on all classes of the source; targets show them in other pictures (CoOp)",
        ),
    )
}  # fmt: skip

INCREMENTAL = "incremental"  # a table of its own: adapter/classification/incremental.py
# not chosen by --protocol: they follow from what a run is given
UNLABELLED = Protocol(
    "unlabelled", 1, "all", ("accuracy",), "",
    "learned from class texts and photos without labels; tested on all classes",
)  # fmt: skip
SEMI = Protocol(
    "semi", 1, "all", ("accuracy",), "",
    "learned from the shots and more photos without labels; tested on all classes",
)  # fmt: skip


def load_protocol(name: str) -> Protocol:
    """Return a protocol by name; a version may follow a slash.

    Raises:
        UserError: no protocol has that name, or not in that version.
    """
    base, _, version = name.partition("/")
    if base not in PROTOCOLS:
        raise unknown_name("protocol", base, PROTOCOLS)
    protocol = PROTOCOLS[base]
    if version and version != str(protocol.version):
        raise UserError(f"Protocol {base} is at version {protocol.version}, not {version}.")
    return protocol

"""How a caption run compares photos with texts: the seed and the weight of h(x), by validation.

The choice is recorded in the run, so that a search needs no data set. It belongs to the weights of
the generators: after another training it is made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from ...pipeline.config import Section
from ...pipeline.datasets import open_dataset
from ...pipeline.embed.spread import everywhere
from ...pipeline.errors import UserError
from ...pipeline.files import hash_value
from ...pipeline.ranks import group
from ...pipeline.store import read_record, write_record
from .data import caption_set, some, training_and_validation
from .retrieval import WEIGHTS, mixture, weight_scores
from .train import CaptionAdapter

if TYPE_CHECKING:
    from ...pipeline.datasets import Dataset
    from ...pipeline.encoders.base import Encoder
    from ..run import RunFolder

FILE = "captions/query.json"


class ChosenQuery(Section):
    """What validation chose: ``(1 − weight)·x + weight·h(x)``, with the ``h`` of one seed."""

    seed: int
    weight: float = Field(ge=0, le=1)
    mean_recall: float = Field(description="on validation, both directions, in percent")
    plain_recall: float = Field(description="the same of x alone")
    images: int = Field(ge=1, description="validation images")
    generators: str = Field(description="hash of the weights of all seeds")

    def sentence(self) -> str:
        """Say what was chosen, and by which figures."""
        figures = (
            f"mean recall {self.mean_recall:.1f} % on {self.images} validation images,"
            f" x alone {self.plain_recall:.1f} %"
        )
        if not self.weight:
            return f"Photos as x: validation found no use for h(x) ({figures})."
        what = "h(x)" if self.weight == 1 else f"{1 - self.weight:.1f}·x + {self.weight:.1f}·h(x)"
        return f"Photos as {what}, seed {self.seed}, as validation chose ({figures})."


@dataclass(frozen=True)
class PlainFeature:
    """Photos as the encoder sees them."""

    key: str = "x"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return x (n, d) as it is."""
        return x


class MixedFeature:
    """Photos as ``(1 − weight)·x + weight·h(x)`` at unit length."""

    def __init__(self, adapter: CaptionAdapter, weight: float) -> None:
        self.adapter, self.weight = adapter, weight
        self.key = f"h {adapter.hash} {weight:.3f}"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Map x (n, d) to (n, d)."""
        return mixture(x, self.adapter.h(x), self.weight)


def choose_query(
    dataset: Dataset, encoder: Encoder, adapters: Sequence[CaptionAdapter]
) -> ChosenQuery:
    """Return the seed and the weight with the best mean recall on validation; ties to less h(x)."""
    _, images = training_and_validation(dataset)
    images = some(images, adapters[0].config.max_validation)
    val = caption_set(encoder, images, "validation")
    table = np.array([weight_scores(val, adapter.h(val.x.numpy())) for adapter in adapters])
    column = int(table.max(0).argmax())  # the first, hence the smallest weight of the best
    row = int(table[:, column].argmax())
    return ChosenQuery(
        seed=adapters[row].config.seed,
        weight=WEIGHTS[column],
        mean_recall=float(table[row, column]),
        plain_recall=float(table[row, 0]),
        images=len(val.images),
        generators=generators_hash(adapters),
    )


def keep_query(
    run: RunFolder, dataset: Dataset, encoder: Encoder, adapters: Sequence[CaptionAdapter]
) -> ChosenQuery:
    """Return the recorded choice if it belongs to these generators, else choose and record."""
    found = recorded_query(run, adapters)
    if not everywhere(found is not None) or found is None:
        found = choose_query(dataset, encoder, adapters)
        if group().first:
            write_record(run.path / FILE, found.model_dump(mode="json"))
    return found


def recorded_query(run: RunFolder, adapters: Sequence[CaptionAdapter]) -> ChosenQuery | None:
    """Return the choice that the run records for these generators, if there is one."""
    path = run.path / FILE
    if not path.exists():
        return None
    found = ChosenQuery.parse(read_record(path), str(path))
    return found if found.generators == generators_hash(adapters) else None


def query_of_run(
    run: RunFolder, encoder: Encoder, adapters: Sequence[CaptionAdapter], dataset: str, root: str
) -> ChosenQuery:
    """Return the choice of a run; of one made by an older version it is made now, and recorded.

    Raises:
        UserError: it must be made, and the data set of the run is not here.
    """
    found = recorded_query(run, adapters)
    if found is not None:
        return found
    try:
        data = open_dataset(dataset, Path(root) if root else None)
    except UserError as error:
        raise UserError(
            f"{run.path} does not record how validation would search, and its data set is not"
            f" here: {error.message}",
            "Search with the encoder alone: aape search --encoder NAME.",
        ) from error
    return keep_query(run, data, encoder, adapters)


def generators_hash(adapters: Sequence[CaptionAdapter]) -> str:
    """Tell two sets of generators apart."""
    return hash_value([adapter.hash for adapter in adapters])[:16]

"""What a suite has open: its data sets, its encoder once needed, and where its banks lie."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...pipeline.files import hash_file
from .plan import Suite

if TYPE_CHECKING:
    from ...pipeline.datasets import Dataset
    from ...pipeline.encoders.base import Encoder


class Opened:
    """A suite with what it reads.

    Attributes:
        out: folder of all that the suite makes.
        datasets: opened, by name.
    """

    def __init__(self, suite: Suite, out: Path) -> None:
        self.suite, self.out = suite, out
        self.datasets: dict[str, Dataset] = {}

    @cached_property
    def encoder(self) -> Encoder:
        """The suite's encoder, loaded when it is first needed."""
        from ...pipeline.embed.spread import open_encoder

        return open_encoder(self.suite.encoder)

    def bank(self, dataset: str) -> Path:
        """Return where the bank of a data set is."""
        return self.out / f"{dataset}.bank.parquet"

    def hash_of_bank(self, dataset: str) -> str:
        """Return the hash of a bank's file; nothing where there is none yet."""
        path = self.bank(dataset)
        return hash_file(path) if path.exists() else ""

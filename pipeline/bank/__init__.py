"""The prompt bank: one Parquet file of prompts, their origin and their embeddings.

::

    bank = PromptBank.open("cars.bank.parquet")
    bank.prompts(0)                     # the kept texts of class 0
    bank.reference_embeddings()         # (c, k, d) and a mask
"""

from .bank import PromptBank
from .schema import (
    KEPT,
    SCHEMA_VERSION,
    BankDataset,
    BankMetadata,
    PromptRow,
    WrittenQueries,
    arrow_schema,
)
from .write import write_bank

__all__ = [
    "KEPT",
    "SCHEMA_VERSION",
    "BankDataset",
    "BankMetadata",
    "PromptBank",
    "PromptRow",
    "WrittenQueries",
    "arrow_schema",
    "write_bank",
]

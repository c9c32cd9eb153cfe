"""Banks without an encoder and a language model: what the benchmarks of the bank are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from aape.pipeline.bank import BankMetadata

DATASET = "synthetic"


def table_with(known: Mapping[str, Any], vectors: np.ndarray) -> pa.Table:
    """Return the rows of a bank with vectors (n, d); columns that are not known say nothing."""
    import pyarrow as pa

    from aape.pipeline.bank import arrow_schema
    from aape.pipeline.bank.schema import embedding_array

    n, dim = vectors.shape
    usual = {"dataset": DATASET, "query_template": "", "sampling": None, "created_at": None}
    arrays = []
    for field in list(arrow_schema(dim))[:-1]:
        value = usual.get(field.name, "" if pa.types.is_string(field.type) else 0)
        arrays.append(pa.array(known.get(field.name, [value] * n), field.type))
    return pa.table([*arrays, embedding_array(vectors)], schema=arrow_schema(dim))


def metadata_of(classes: int, dim: int) -> BankMetadata:
    """Return what such a bank says of itself."""
    from aape.pipeline.bank import BankMetadata

    return BankMetadata(
        dataset=DATASET,
        class_names=[f"class {number}" for number in range(classes)],
        encoder_id="none",
        encoder_fingerprint="none@0",
        dim=dim,
    )

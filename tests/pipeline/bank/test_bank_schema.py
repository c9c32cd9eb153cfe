"""The columns of a bank as its documentation has them, and embeddings as a column and back."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from places import REPOSITORY
from random_bank import metadata, random_unit

from aape.pipeline.bank import BankDataset, PromptRow, arrow_schema
from aape.pipeline.bank.schema import embedding_array, embedding_matrix
from aape.pipeline.errors import UserError


def test_columns_are_those_of_the_documentation() -> None:
    page = (REPOSITORY / "docs" / "bank.md").read_text(encoding="utf-8")
    table = page.partition("| column |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert [name for row in rows for name in re.findall("`([^`]+)`", row)] == arrow_schema(8).names


def test_only_sampling_and_time_may_be_unknown() -> None:
    schema = arrow_schema(8)
    assert [field.name for field in schema if field.nullable] == ["sampling", "created_at"]
    assert str(schema.field("embedding").type) == "fixed_size_list<element: float not null>[8]"


def test_a_prompt_says_no_more_than_it_is_told() -> None:
    row = PromptRow("p", "toy", 0, "cat", "a cat", np.zeros(8))
    told = {"prompt_id": "p", "dataset": "toy", "class_name": "cat", "text": "a cat"}
    empty = {field.name: {"string": "", "int64": 0, "int32": 0}.get(str(field.type))
             for field in arrow_schema(8) if field.name != "embedding"}  # fmt: skip
    wanted = {**empty, **told, "verdict": "kept"}
    assert {name: getattr(row, name) for name in wanted} == wanted


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_embeddings_come_back_from_any_number_of_pieces(pieces: int) -> None:
    parts = [random_unit(5, seed=i) for i in range(pieces)]
    kind = arrow_schema(8).field("embedding").type
    column = pa.chunked_array([embedding_array(part) for part in parts], type=kind)
    expected = np.concatenate([np.zeros((0, 8), np.float32), *parts])
    found = embedding_matrix(column)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    if pieces:
        np.testing.assert_array_equal(embedding_matrix(column.chunk(0)), parts[0])
    # any strides and any kind of float
    turned = np.asfortranarray(random_unit(4).astype(np.float64))
    found = embedding_matrix(embedding_array(turned))
    np.testing.assert_array_equal(found, turned.astype(np.float32))


def test_a_data_set_of_a_bank_is_found_by_its_name_alone() -> None:
    one = metadata()
    assert one.of().dataset == one.of("toy").dataset == "toy"
    with pytest.raises(UserError, match="Unknown data set of this bank 'toys'"):
        one.of("toys")
    two = metadata(further=[BankDataset(dataset="other", class_names=["lion"])])
    assert two.of("other").class_names == ["lion"]
    with pytest.raises(UserError, match="several data sets: toy, other"):
        two.of()

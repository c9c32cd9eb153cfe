"""Writing and reading a bank. Embeddings here are random unit vectors: no encoder is involved."""

from __future__ import annotations

import html
import json
import re
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import FakeEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_bank import DIM, metadata, random_unit, rows

from aape.pipeline.bank import (
    BankDataset,
    BankMetadata,
    PromptBank,
    PromptRow,
    arrow_schema,
    schema,
    write,
    write_bank,
)
from aape.pipeline.bank import format as footer
from aape.pipeline.bank.card import bank_card
from aape.pipeline.bank.diff import diff_banks
from aape.pipeline.bank.export import export_bank
from aape.pipeline.bank.merge import merge_banks
from aape.pipeline.errors import UserError
from aape.pipeline.formulas import original

SOME_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@pytest.fixture
def bank(tmp_path: Path) -> PromptBank:
    return write_bank(tmp_path / "toy.bank.parquet", rows(), metadata())


def test_rows_come_back_as_they_went_in(bank):
    assert len(bank) == 30
    assert bank.class_ids == [0, 1, 2]
    expected = {row.prompt_id: row for row in rows()}
    for got in bank.table.to_pylist():
        row = expected[got["prompt_id"]]
        assert np.array_equal(np.array(got.pop("embedding"), np.float32), row.embedding)
        assert got.pop("sampling") == {**row.sampling, "other": None}
        assert got == {name: getattr(row, name) for name in got}


def test_any_parquet_reader_reads_a_bank(bank):
    table = pq.read_table(bank.path)
    assert table.schema.equals(arrow_schema(DIM))
    assert table.equals(bank.table)


def test_rows_of_several_row_groups_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "GROUP_ROWS", 7)
    bank = write_bank(tmp_path / "b.parquet", rows(), metadata())
    assert len(bank.footer.groups) == 5
    assert pq.read_table(bank.path).equals(bank.table)
    assert [len(bank.prompts(c, verdict="")) for c in range(4)] == [10, 10, 10, 0]
    some = np.array([29, 3, 14, 3])
    everything = np.concatenate([vectors for _, vectors in bank.vectors.groups()])
    assert np.array_equal(bank.vectors.take(some), everything[some])


def test_reference_embeddings_are_the_kept_ones_padded_with_zeros(bank):
    vectors, mask = bank.reference_embeddings([2, 0])
    by_id = {row.prompt_id: row for row in rows()}
    for line, class_id in enumerate([2, 0]):
        kept = [r for r in by_id.values() if r.class_id == class_id and r.verdict == "kept"]
        assert mask[line].sum() == len(kept) == len(bank.prompts(class_id))
        assert {r.embedding.tobytes() for r in kept} == {
            v.tobytes() for v in vectors[line][mask[line]]
        }
        assert not vectors[line][~mask[line]].any()
        mean = np.mean([r.embedding for r in kept], axis=0)
        np.testing.assert_allclose(
            bank.mean_embeddings([class_id])[0], mean / np.linalg.norm(mean), atol=1e-6
        )


def test_prompts_by_verdict(bank):
    assert set(bank.prompts(0)) == {f"text {i}" for i in range(0, 30, 3) if i % 5}
    assert set(bank.prompts(0, verdict="duplicate")) == {"text 0", "text 15"}
    assert len(bank.prompts(0, verdict="")) == 10


@pytest.mark.parametrize("more", [1, 10**9])
def test_a_directory_that_lies_about_kept_prompts_is_refused(bank, more):
    first, *others = bank.footer.classes
    lie = first.model_copy(update={"kept": first.kept + more})
    liar = PromptBank(bank.path, bank.footer.model_copy(update={"classes": [lie, *others]}))
    with pytest.raises(UserError, match=r"directory of .* is wrong about its classes"):
        liar.reference_embeddings([0])


def test_a_class_without_prompts_is_an_error_that_names_it(bank):
    with pytest.raises(UserError, match=r"Class 3 \('no prompts'\) of toy has no kept prompt"):
        bank.reference_embeddings()
    with pytest.raises(UserError, match="has no class 4"):
        bank.prompts(4)
    prompts, mask = bank.reference_embeddings(bare=True)
    assert mask.sum(1).tolist() == bank.kept_counts()
    assert not mask[3].any()
    assert not prompts[3].any()
    for number in range(3):
        alone, _ = bank.reference_embeddings([number])
        np.testing.assert_array_equal(prompts[number, mask[number]], alone[0])


def test_names_may_repeat_and_ids_find_them(bank):
    assert [entry.class_id for entry in bank.find_class("cat")] == [0, 2]
    assert [entry.class_id for entry in bank.find_class("1")] == [1]
    assert [entry.class_id for entry in bank.find_class("DOG")] == [1]
    with pytest.raises(UserError, match="Nearest: 'dog'"):
        bank.find_class("dogs")


def test_another_encoder_is_refused(bank):
    bank.check_encoder(FakeEncoder("0", name="random"))
    with pytest.raises(UserError, match="encoded by random@0, but the encoder here is other@1"):
        bank.check_encoder(FakeEncoder("1", name="other"))


def test_the_order_of_arrival_and_the_time_do_not_matter(tmp_path, bank):
    later = datetime(2027, 1, 1, tzinfo=timezone.utc)
    again = write_bank(tmp_path / "again.parquet", rows(created_at=later)[::-1], metadata())
    assert again.content_hash == bank.content_hash
    assert diff_banks(bank, again).same
    same_time = write_bank(tmp_path / "same.parquet", rows()[::-1], metadata())
    assert same_time.path.read_bytes() == bank.path.read_bytes()


@pytest.mark.parametrize(
    ("column", "value"),
    [("text", "other"), ("verdict", "refusal"), ("seed", 7), ("sampling", None), ("llm", "x")],
)
def test_any_other_change_changes_the_content_hash(tmp_path, bank, column, value):
    changed = write_bank(tmp_path / "c.parquet", rows(**{column: value}), metadata())
    assert changed.content_hash != bank.content_hash
    assert not diff_banks(bank, changed).same


def test_the_content_hash_does_not_depend_on_row_groups(tmp_path, bank, monkeypatch):
    monkeypatch.setattr(write, "GROUP_ROWS", 4)
    assert write_bank(tmp_path / "g.parquet", rows(), metadata()).content_hash == bank.content_hash


def test_a_bank_without_rows(tmp_path):
    bank = write_bank(tmp_path / "empty.parquet", [], metadata())
    assert len(bank) == 0
    assert len(bank.table) == 0
    assert bank.prompts(0) == []
    assert PromptBank.open(bank.path).content_hash == bank.content_hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_id": "same"}, "Two rows have the prompt id 'same'"),
        ({"class_id": 9}, "Class id 9 of toy is not in its class names"),
        ({"class_name": "cow"}, "Class 0 of toy is called 'cat' in the metadata, but 'cow'"),
        ({"dataset": "toys"}, "Did you mean 'toy'"),
        ({"embedding": np.ones(DIM, np.float32)}, "has the length 2.828, not 1"),
        ({"embedding": np.full(DIM, np.nan, np.float32)}, "has the length nan, not 1"),
        ({"embedding": np.ones(5, np.float32)}, "shape"),
        ({"text": "\ud800"}, "not valid Unicode"),
    ],
)
def test_rows_that_do_not_fit_leave_no_file(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        write_bank(tmp_path / "bad.parquet", rows(**changes), metadata())
    assert not list(tmp_path.glob("*.parquet"))


def test_dropped_prompts_may_have_no_embedding(tmp_path):
    zeros = {"embedding": np.zeros(DIM, np.float32), "verdict": "refusal"}
    assert len(write_bank(tmp_path / "z.parquet", rows(**zeros), metadata())) == 30
    with pytest.raises(UserError, match="length 0"):
        write_bank(tmp_path / "k.parquet", rows(embedding=zeros["embedding"]), metadata())


def test_columns_that_are_unknown_or_missing_are_refused(tmp_path):
    table = schema.rows_to_table(rows(), DIM)
    with pytest.raises(UserError, match="Unknown column of a bank 'colour'"):
        write_bank(tmp_path / "a.parquet", table.append_column("colour", pa.nulls(30)), metadata())
    with pytest.raises(UserError, match="lack the columns text, seed"):
        write_bank(tmp_path / "a.parquet", table.drop_columns(["text", "seed"]), metadata())


# --- versions and strangers ---


def test_a_newer_schema_is_refused(bank, monkeypatch):
    monkeypatch.setattr(footer, "SCHEMA_VERSION", 0)
    with pytest.raises(UserError, match=r"has schema version 1; this aape reads up to 0.*Update"):
        PromptBank.open(bank.path)


def test_an_older_schema_is_migrated_step_by_step(bank, monkeypatch):
    def rename(document):
        facts = document["metadata"]
        return {**document, "metadata": {**facts, "schema_version": 2, "preprocessing": "since 2"}}

    monkeypatch.setattr(footer, "SCHEMA_VERSION", 2)
    with pytest.raises(UserError, match="has schema version 1, which this aape cannot read"):
        PromptBank.open(bank.path)
    monkeypatch.setitem(footer.MIGRATIONS, 1, rename)
    opened = PromptBank.open(bank.path)
    assert opened.metadata.schema_version == 2
    assert opened.metadata.preprocessing == "since 2"
    assert opened.prompts(0) == bank.prompts(0)


def test_files_that_are_no_bank_are_named_as_such(tmp_path):
    plain = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"x": [1]}), plain)
    (tmp_path / "text.parquet").write_text("hello")
    (tmp_path / "nothing.parquet").touch()
    for name, message in {
        "plain.parquet": "is a Parquet file, but not a prompt bank",
        "text.parquet": "does not begin as a Parquet file",
        "nothing.parquet": "does not begin as a Parquet file",
        "absent.parquet": "does not exist",
        ".": "is a folder",
    }.items():
        with pytest.raises(UserError, match=message):
            PromptBank.open(tmp_path / name)


# --- several data sets ---


def two_datasets() -> BankMetadata:
    return metadata(further=[BankDataset(dataset="other", class_names=["lion"])])


def test_a_bank_of_two_data_sets(tmp_path):
    more = [
        PromptRow("q", "other", 0, "lion", "a lion", random_unit(1)[0]),
        PromptRow("r", "other", 0, "lion", "the lion", random_unit(1, seed=1)[0]),
    ]
    bank = write_bank(tmp_path / "two.parquet", [*rows(), *more], two_datasets())
    with pytest.raises(UserError, match="covers several data sets: toy, other"):
        _ = bank.class_ids
    assert bank.class_ids_of("other") == [0]
    assert bank.prompts(0, dataset="other") == ["a lion", "the lion"]
    assert bank.reference_embeddings(dataset="other")[0].shape == (1, 2, DIM)
    assert [(e.dataset, e.class_id) for e in bank.find_class("0")] == [("toy", 0), ("other", 0)]


def test_merging_keeps_class_ids_and_drops_repeated_prompts(tmp_path, bank):
    lion = [PromptRow("q", "other", 0, "lion", "a lion", random_unit(1)[0])]
    facts = metadata(dataset="other", class_names=["lion"])
    other = write_bank(tmp_path / "other.parquet", lion, facts)
    more = write_bank(tmp_path / "more.parquet", rows(40), metadata())
    merged = merge_banks([other.path, bank.path, more.path], tmp_path / "merged.parquet")
    assert len(merged) == 41
    assert [part.dataset for part in merged.metadata.datasets] == ["other", "toy"]
    assert merged.prompts(1, dataset="toy") == more.prompts(1)
    with pytest.raises(UserError, match="exists"):
        merge_banks([bank.path], tmp_path / "merged.parquet")


def test_merging_refuses_what_does_not_belong_together(tmp_path, bank):
    out = tmp_path / "out.parquet"
    encoder = write_bank(tmp_path / "e.parquet", rows(), metadata(encoder_fingerprint="x@1"))
    with pytest.raises(UserError, match="cannot be compared"):
        merge_banks([bank.path, encoder.path], out)
    names = ["cat", "dog", "cat", "other name"]
    other = write_bank(tmp_path / "n.parquet", rows(), metadata(class_names=names))
    with pytest.raises(UserError, match="other class names for toy"):
        merge_banks([bank.path, other.path], out)
    texts = write_bank(tmp_path / "t.parquet", rows(text="other"), metadata())
    with pytest.raises(UserError, match="has different texts"):
        merge_banks([bank.path, texts.path], out)
    assert not out.exists()


def test_diff_names_what_was_added_removed_and_changed(tmp_path, bank):
    changed = rows(31)[1:]
    changed[0] = rows(31, text="new words")[1]
    other = write_bank(tmp_path / "d.parquet", changed, metadata(preprocessing="new"))
    diff = diff_banks(bank, other)
    assert (diff.removed, diff.added) == (["p0"], ["p30"])
    assert diff.metadata == {"preprocessing": ("", "new")}
    words = next(prompt for prompt in diff.changed if prompt.prompt_id == "p1")
    assert words.changes["text"] == ("text 1", "new words")


# --- names are data ---


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=SOME_TEXT, text=SOME_TEXT)
def test_names_and_texts_are_data_everywhere(tmp_path_factory, name, text):
    import csv

    folder = tmp_path_factory.mktemp("names")
    names = [name, "dog", name, "unused"]
    made = rows(6, names=names, text=text)
    bank = write_bank(folder / "b.parquet", made, metadata(class_names=names))
    opened = PromptBank.open(bank.path)
    assert opened.metadata.class_names == names
    assert set(opened.table.column("class_name").to_pylist()) == {name, "dog"}
    assert opened.prompts(0, verdict="") == [text, text]

    export_bank(opened, "cupl-json", folder / "c.json")
    document = json.loads((folder / "c.json").read_text(encoding="utf-8"))
    assert set(document) == set(names)
    assert document[name]
    assert set(document[name]) == {text}

    export_bank(opened, "csv", folder / "c.csv")
    with (folder / "c.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert {original(line["class_name"]) for line in lines} == {name, "dog"}
    assert {original(line["text"]) for line in lines} == {text}

    export_bank(opened, "parquet", folder / "c.parquet")
    assert pq.read_table(folder / "c.parquet").column("text").to_pylist() == [text] * 6

    found = opened.sql("SELECT DISTINCT class_id, class_name, text FROM bank ORDER BY 1")
    assert found.column("class_name").to_pylist() == [name, "dog", name]

    cells = [cell.split("</bdi>")[0] for cell in bank_card(opened).split("<bdi>")[1:]]
    assert not any(mark in cell for cell in cells for mark in "<>|`*[]\n")
    within = re.compile(r"(?<=[^\W_])_(?=[^\W_])")  # there it emphasises nothing
    assert not any("_" in within.sub("", cell) for cell in cells)
    readable = {html.unescape(cell) for cell in cells}
    assert name in readable


@pytest.mark.parametrize("name", ['"quoted"', "two\nlines", "<b>x</b>", "עברית", "🚗", "x" * 300])
def test_the_named_hard_names(tmp_path, name):
    names = [name, "dog", name, "unused"]
    bank = write_bank(tmp_path / "b.parquet", rows(names=names), metadata(class_names=names))
    assert [entry.class_id for entry in bank.find_class(name)] == [0, 2]
    assert bank.sql("SELECT class_name FROM classes").column(0).to_pylist() == names
    card = bank_card(bank)
    assert name in {html.unescape(c.split("</bdi>")[0]) for c in card.split("<bdi>")[1:]}


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("import", ["| published file, SHA-256 begins | <bdi>abc</bdi> |", "may be wrong"]),
        ("waffle", ["| random texts of version | <bdi>abc</bdi> |", "a control, not knowledge"]),
    ],
)
def test_the_card_names_no_language_model_that_was_not_there(tmp_path, engine, expected):
    made = rows(engine=engine, engine_version="abc")
    card = bank_card(write_bank(tmp_path / "b.parquet", made, metadata()))
    assert all(part in card for part in expected)
    assert "| language model |" not in card


def test_hugging_face_folder_loads(tmp_path, bank, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    export_bank(bank, "hf", tmp_path / "hf")
    loaded = datasets.load_dataset(
        str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded["text"][:] == bank.table.column("text").to_pylist()
    np.testing.assert_array_equal(loaded[3]["embedding"], bank.vectors.take(np.array([3]))[0])
    with pytest.raises(UserError, match="not empty"):
        export_bank(bank, "hf", tmp_path / "hf")


def test_export_refuses_the_bank_itself_and_unknown_formats(bank):
    with pytest.raises(UserError, match="is the bank itself"):
        export_bank(bank, "csv", bank.path)
    with pytest.raises(UserError, match="Unknown export format 'xml'"):
        export_bank(bank, "xml", "x")

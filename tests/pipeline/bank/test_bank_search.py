"""Search equals exact search, or says how near it comes; SQL runs in a closed room."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from random_bank import DIM, metadata, random_unit, rows

from aape.pipeline.bank import KEPT, PromptBank, PromptRow, index, write, write_bank
from aape.pipeline.bank.search import kept_rows, parts_of
from aape.pipeline.errors import UserError


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "GROUP_ROWS", 50)  # several row groups
        return write_bank(tmp_path_factory.mktemp("bank") / "b.parquet", rows(400), metadata())


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    """20,000 unit vectors around 100 centres, as prompts of classes lie; still no encoder."""
    random = np.random.default_rng(0)
    centres = random_unit(100, 32, seed=1)
    vectors = centres.repeat(200, 0) + 0.15 * random.standard_normal((20_000, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    names = [f"class {number}" for number in range(100)]
    made = [
        PromptRow(f"p{i:05}", "toy", i // 200, names[i // 200], "text", vector)
        for i, vector in enumerate(vectors)
    ]
    facts = metadata(class_names=names, dim=32)
    return write_bank(tmp_path_factory.mktemp("clustered") / "b.parquet", made, facts)


def by_hand(bank: PromptBank, query: np.ndarray, k: int) -> list[tuple[str, float]]:
    """The obvious search: all cosines, sorted."""
    kept = [row for row in bank.table.to_pylist() if row["verdict"] == KEPT]
    cosines = [(row["prompt_id"], float(np.float32(row["embedding"]) @ query)) for row in kept]
    return sorted(cosines, key=lambda pair: -pair[1])[:k]


@pytest.mark.parametrize("k", [1, 7, 320, 1000])
@pytest.mark.parametrize("indexed", [False, True])
def test_flat_search_is_exact_search(bank, k, indexed):
    bank.index_path.unlink(missing_ok=True)
    if indexed:
        report = bank.reindex()
        assert (report.kind, report.rows, report.recall) == ("flat", 320, 1.0)
    opened = PromptBank.open(bank.path)
    for query in random_unit(5, seed=3):
        hits = opened.search(query, k)
        expected = by_hand(bank, query, k)
        assert [hit.prompt_id for hit in hits] == [name for name, _ in expected]
        np.testing.assert_allclose(
            [hit.cosine for hit in hits], [c for _, c in expected], atol=1e-6
        )
        assert all(f"text {hit.prompt_id[1:]}" == hit.text for hit in hits)


def test_a_bank_without_rows_finds_nothing(tmp_path):
    empty = write_bank(tmp_path / "e.parquet", [], metadata())
    assert empty.search(random_unit(1)[0]) == []


@pytest.mark.parametrize("size", [1, 3, 4, 10, 11])
def test_parts_are_all_rows_in_order(size):
    parts = [part.tolist() for part in parts_of(np.arange(10), size)]
    assert [row for part in parts for row in part] == list(range(10))
    assert [len(part) for part in parts[:-1]] == [size] * (len(parts) - 1)
    assert 0 < len(parts[-1]) <= size


def test_search_within_a_class(bank):
    hits = bank.search(random_unit(1, seed=3)[0], 5, class_id=1)
    assert {hit.class_id for hit in hits} == {1}
    assert [h.cosine for h in hits] == sorted((h.cosine for h in hits), reverse=True)


def test_a_query_of_another_width_is_refused(bank):
    with pytest.raises(UserError, match="has the width 3, the bank 8"):
        bank.search(np.ones(3))


@pytest.mark.parametrize("kind", ["ivf", "ivfpq", "hnsw"])
def test_approximate_search_reaches_the_recall_it_reports(clustered, kind):
    report = clustered.reindex(kind)
    assert report.kind == kind
    assert report.recall >= 0.95
    opened = PromptBank.open(clustered.path)
    found = 0
    for query in clustered.vectors.take(np.arange(7, 20_000, 400)):
        near = {hit.prompt_id for hit in opened.search(query, 10)}
        found += len(near & {hit.prompt_id for hit in opened.search(query, 10, exact=True)})
    assert found / 500 >= 0.9


def test_the_kind_is_chosen_by_size(clustered, monkeypatch):
    assert clustered.reindex().kind == "flat"
    monkeypatch.setattr(index, "FLAT_BELOW", 20_000)
    assert clustered.reindex().kind == "ivf"
    monkeypatch.setattr(index, "CODES_FROM", 20_000)
    assert clustered.reindex().kind == "ivfpq"
    with pytest.raises(UserError, match="Unknown kind of index 'tree'"):
        clustered.reindex("tree")


def test_codes_take_few_bytes_and_their_candidates_are_ranked_by_the_bank(clustered):
    report = clustered.reindex("ivfpq")
    assert report.candidates > 0
    assert report.size < 20_000 * (32 + 8 + 8) + 32 * 4 * 1000  # codes, ids, centres
    opened = PromptBank.open(clustered.path)
    query = clustered.vectors.take(np.array([777]))
    cosines, found = opened.index.search(query, 10)
    np.testing.assert_allclose(cosines[0], opened.vectors.take(found[0]) @ query[0], atol=1e-6)
    assert found[0, 0] == 777
    assert (np.diff(cosines[0]) <= 0).all()


def test_a_small_bank_has_codes_of_fewer_bits(bank):
    assert bank.reindex("ivfpq").recall >= 0.95
    assert len(PromptBank.open(bank.path).search(random_unit(1)[0], 5)) == 5


def test_candidates_that_are_no_rows_are_refused(bank):
    with pytest.raises(UserError, match="is damaged"):
        index.ranked_again(bank, random_unit(1), np.array([[3, 400]]), 1)


def test_lists_of_a_bank_of_few_rows(tmp_path):
    few = write_bank(tmp_path / "f.parquet", rows(30), metadata())
    report = few.reindex("ivf")
    assert (report.kind, report.rows, report.effort, report.recall) == ("ivf", 24, 1, 1.0)
    query = random_unit(1, seed=3)[0]
    assert few.search(query, 5) == few.search(query, 5, exact=True)


def test_effort_is_raised_no_further_than_the_recall_needs(tmp_path, monkeypatch):
    """24 lists, from 8 at a time to all of them."""
    many = write_bank(tmp_path / "m.parquet", rows(1200), metadata())
    efforts = {}
    for target in (0.0, 2.0):
        monkeypatch.setattr(index, "_RECALL_TARGET", target)
        efforts[target] = many.reindex("ivf").effort
    assert efforts == {0.0: 8, 2.0: 24}


def test_a_bank_without_kept_prompts_has_no_index(tmp_path):
    dropped = write_bank(tmp_path / "d.parquet", rows(verdict="refusal"), metadata())
    with pytest.raises(UserError, match="no kept prompt to search"):
        dropped.reindex()
    assert dropped.search(random_unit(1)[0]) == []


# --- SQL ---


def test_sql_sees_every_column_and_the_classes(bank):
    counts = bank.sql("SELECT class_id, count(*) n FROM bank WHERE verdict = 'kept' GROUP BY 1")
    assert {row["class_id"]: row["n"] for row in counts.to_pylist()} == {
        entry.class_id: entry.kept for entry in bank.footer.classes
    }
    assert bank.sql("SELECT * FROM bank").column_names == bank.schema.names
    classes = bank.sql("SELECT class_name, kept FROM classes ORDER BY class_id").to_pylist()
    assert classes[3] == {"class_name": "no prompts", "kept": 0}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit")
def test_sql_takes_no_memory_that_duckdb_does_not_count(bank):
    import resource

    from aape.pipeline.bank.sql import bounded_memory

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(UserError, match="more than 2GB of memory"), bounded_memory():
        bank.sql("SELECT list_sum(range(1000000000))")  # 8 GB
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_sql_counts_the_bytes_of_a_result(bank, monkeypatch):
    from aape.pipeline.bank import sql

    monkeypatch.setattr(sql, "_MOST_BYTES", 100_000)
    assert bank.sql("SELECT repeat('x', 1000) FROM range(50)").num_rows == 50
    with pytest.raises(UserError, match="more than 2GB of memory"):
        bank.sql("SELECT repeat('x', 1000) FROM range(200)")


@pytest.mark.parametrize("value", ["'infinity'::DATE", "TIMESTAMP '290000-01-01'"])
def test_sql_says_which_dates_python_lacks(bank, value):
    from aape.pipeline.bank.verbs import bank_sql

    with pytest.raises(UserError, match="date before the year 1 or after 9999"):
        bank_sql(f"SELECT {value} AS x", bank)
    assert bank_sql(f"SELECT ({value})::VARCHAR AS x", bank)


def test_sql_of_half_a_character(bank):
    with pytest.raises(UserError, match="no text in UTF-8"):
        bank.sql("SELECT '\udce9'")


def test_sql_compares_embeddings(bank):
    query = """
        SELECT b.prompt_id, array_cosine_similarity(a.embedding, b.embedding) AS cosine
        FROM bank a, bank b WHERE a.prompt_id = 'p1' ORDER BY cosine DESC LIMIT 5
    """
    own = next(row for row in rows(400) if row.prompt_id == "p1").embedding
    vectors = {row.prompt_id: row.embedding for row in rows(400)}
    best = sorted(vectors, key=lambda name: -float(vectors[name] @ own))[:5]
    assert bank.sql(query).column("prompt_id").to_pylist() == best
    kind = bank.sql("SELECT typeof(embedding) AS t FROM bank LIMIT 1")
    assert kind.column("t").to_pylist() == [f"FLOAT[{DIM}]"]


SECRET = "python variables must stay out of reach"

REFUSED = [
    "COPY bank TO 'stolen.csv'",
    "COPY (SELECT 1) TO 'stolen.parquet'",
    "EXPORT DATABASE 'stolen'",
    "SELECT * FROM read_csv('secret.csv')",
    "SELECT * FROM 'secret.csv'",
    "SELECT * FROM read_text('secret.csv')",
    "SELECT * FROM read_blob('secret.csv')",
    "SELECT * FROM read_parquet('b.parquet')",
    "SELECT * FROM parquet_metadata('b.parquet')",
    "SELECT * FROM glob('*')",
    "SELECT * FROM read_csv('https://example.org/x.csv')",
    "SELECT * FROM query('COPY bank TO ''stolen.csv''')",
    "SELECT getenv('HOME')",
    "ATTACH 'other.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA enable_profiling",
    "CALL enable_logging()",
    "EXPLAIN ANALYZE COPY bank TO 'stolen.csv'",
    "CREATE TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW bank AS SELECT 1",
    "DROP VIEW bank",
    "INSERT INTO bank SELECT * FROM bank",
    "UPDATE bank SET text = ''",
    "DELETE FROM bank",
    "SELECT 1; DROP VIEW bank",
    "SELECT * FROM SECRET",
    "SELECT * FROM rows_in_scope",
    "",
    "not SQL at all",
]


@pytest.mark.parametrize("query", REFUSED)
def test_sql_cannot_write_or_reach_outside(bank, tmp_path, monkeypatch, query):
    import pyarrow as pa

    rows_in_scope = pa.table({"x": [1]})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.parquet").write_bytes(bank.path.read_bytes())
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match=r"Only a single SELECT|The query failed"):
        bank.sql(query)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert len(rows_in_scope) == 1


def test_columns_of_one_name_are_told_apart(bank) -> None:
    rows = bank.sql("SELECT 1 AS a, 2 AS a, 3 AS a").to_pylist()
    assert rows == [{"a": 1, "a_2": 2, "a_3": 3}]


def test_a_query_has_limits(bank, monkeypatch) -> None:
    from aape.pipeline.bank import sql

    with pytest.raises(UserError, match="more than 1,000,000 rows"):
        bank.sql("SELECT * FROM range(2000000)")
    monkeypatch.setattr(sql, "_SECONDS", 0.5)
    endless = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"
    with pytest.raises(UserError, match="stopped after"):
        bank.sql(endless)


def test_a_bank_that_is_replaced_while_open_is_not_mixed_with_the_other(tmp_path) -> None:
    opened = write_bank(tmp_path / "b.parquet", rows(20), metadata())
    copy = tmp_path / "copy"
    copy.write_bytes(opened.path.read_bytes())
    copy.replace(opened.path)
    with pytest.raises(UserError, match="changed while it was open"):
        opened.sql("SELECT count(*) FROM bank")
    with pytest.raises(UserError, match="changed while it was open"):
        opened.prompts(0)


def test_kept_rows_are_found_a_row_group_at_a_time(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(write, "GROUP_ROWS", 16)
    some = write_bank(tmp_path / "some.parquet", rows(90), metadata())
    by_class = [some.kept_rows(entry.class_id) for entry in some.footer.classes]
    read = []
    monkeypatch.setattr(
        PromptBank,
        "rows",
        lambda self, *words, of=PromptBank.rows: read.append(1) or of(self, *words),
    )
    np.testing.assert_array_equal(kept_rows(some), np.concatenate(by_class))
    assert len(read) == len(some.footer.groups) == 6
    every = write_bank(tmp_path / "every.parquet", rows(9, verdict=KEPT), metadata())
    np.testing.assert_array_equal(kept_rows(every), np.arange(9))
    assert every.kept_counts() == [3, 3, 3, 0]
    empty = write_bank(tmp_path / "empty.parquet", [], metadata())
    assert not len(kept_rows(empty))

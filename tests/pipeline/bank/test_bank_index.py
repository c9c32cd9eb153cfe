"""The index as a file, and what a search makes of odd queries and of ties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_bank import DIM, metadata, random_unit, rows

from aape.pipeline.bank import PromptBank, index, search, write_bank
from aape.pipeline.bank.index import FLAT_BELOW, build_index, read_report
from aape.pipeline.errors import UserError


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> PromptBank:
    """Of 960 kept prompts. Each test builds the index that it wants."""
    return write_bank(tmp_path_factory.mktemp("index") / "b.parquet", rows(1200), metadata())


@pytest.mark.parametrize("kind", ["flat", "ivf", "ivfpq", "hnsw"])
def test_any_faiss_reads_the_index_and_its_ids_are_rows(bank, kind):
    import faiss

    report = bank.reindex(kind)
    assert (report.rows, report.dim, report.recall_queries) == (960, DIM, 256)
    plain = faiss.read_index(str(bank.index_path))
    assert (plain.ntotal, plain.d) == (960, DIM)
    if kind == "flat":
        kept = search.kept_rows(bank)
        found = plain.search(bank.vectors.take(kept), 1)[1][:, 0]
        assert found.tolist() == kept.tolist()
        assert len(set(found.tolist())) == 960
    if kind in ("ivf", "ivfpq"):
        assert plain.nlist == 960 // 40  # what FAISS asks for to train a list
    if kind == "ivfpq":
        assert (plain.pq.M, plain.pq.nbits) == (DIM, 8)  # a byte for each number, 64 at most


def test_codes_have_as_many_bytes_as_divide_the_width_up_to_64(tmp_path):
    import faiss

    wide = [
        replace(row, embedding=vector)
        for row, vector in zip(rows(60), random_unit(60, 96), strict=True)
    ]
    some = write_bank(tmp_path / "w.parquet", wide, metadata(dim=96))
    some.reindex("ivfpq")
    plain = faiss.read_index(str(some.index_path))
    assert (plain.pq.M, plain.pq.nbits, plain.nlist) == (48, 5, 1)  # 48 prompts: 2⁵ at most


@pytest.mark.parametrize(
    ("kind", "target", "effort", "candidates"),
    [("flat", 2.0, 1, 0), ("hnsw", 0.0, 32, 0), ("hnsw", 2.0, 1024, 0),
     ("ivfpq", 0.0, 8, 4), ("ivfpq", 2.0, 24, 64)],
)  # fmt: skip
def test_effort_goes_from_little_to_all(bank, monkeypatch, kind, target, effort, candidates):
    """No recall reaches two; any reaches zero."""
    monkeypatch.setattr(index, "_RECALL_TARGET", target)
    report = bank.reindex(kind)
    assert (report.effort, report.candidates) == (effort, candidates)
    assert read_report(bank) == report


def test_lists_stay_on_the_disk_and_are_not_read_to_open_them(bank, monkeypatch):
    import faiss

    asked = []
    monkeypatch.setattr(index, "index_intact", lambda *of: asked.append(of) or True)
    bank.reindex("ivf")
    opened = PromptBank.open(bank.path).index
    assert opened.device == "cpu"
    assert opened._index.nprobe == opened.report.effort
    lists = faiss.downcast_InvertedLists(opened._index.invlists)
    assert isinstance(lists, faiss.OnDiskInvertedLists)
    assert not asked
    bank.reindex("flat")
    assert PromptBank.open(bank.path).index.device == "cpu"
    assert len(asked) == 1


@pytest.mark.parametrize("more", [1, -1])
def test_a_byte_too_many_or_too_few_before_the_trailer_is_damage(bank, more):
    report = bank.reindex("flat")
    whole = bank.index_path.read_bytes()
    start, trailer = whole[: report.size], whole[report.size :]
    bank.index_path.write_bytes((start + b"\0" if more > 0 else start[:-1]) + trailer)
    with pytest.raises(UserError, match=r"is damaged or truncated.*reindex"):
        read_report(bank)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 15, 16, 17, 47, 48, 49])
def test_a_stump_of_an_index_is_damage(bank, size):
    bank.reindex("flat")
    whole = bank.index_path.read_bytes()
    bank.index_path.write_bytes(whole[-size:] if size else b"")
    with pytest.raises(UserError, match="is damaged or truncated"):
        read_report(bank)


def test_the_number_below_which_search_is_exact_is_the_one_that_is_told():
    assert f"below {FLAT_BELOW:,} prompts" in str(build_index.__doc__)


@pytest.mark.parametrize("indexed", [False, True])
def test_a_query_of_any_length_finds_cosines(bank, indexed):
    bank.index_path.unlink(missing_ok=True)
    if indexed:
        bank.reindex("flat")
    opened = PromptBank.open(bank.path)
    query = random_unit(1, seed=3)[0]
    short, long = opened.search(1e-3 * query, 5), opened.search(700 * query, 5)
    expected = opened.search(query, 5)
    assert [hit.row for hit in short] == [hit.row for hit in long] == [hit.row for hit in expected]
    for hits in (short, long):
        np.testing.assert_allclose(
            [hit.cosine for hit in hits], [hit.cosine for hit in expected], atol=1e-6
        )
    nothing = opened.search(np.zeros(DIM, np.float32), 5)
    assert [hit.cosine for hit in nothing] == [0.0] * 5


def test_prompts_that_are_equally_near_come_in_the_order_of_the_bank(tmp_path):
    same = write_bank(tmp_path / "s.parquet", rows(20, embedding=random_unit(1)[0]), metadata())
    hits = same.search(random_unit(1, seed=3)[0], 16)
    kept = search.kept_rows(same).tolist()
    assert [hit.row for hit in hits] == kept
    assert len(kept) == 16


def test_more_results_than_rows_are_all_rows(tmp_path):
    few = write_bank(tmp_path / "f.parquet", rows(6), metadata())
    cosines, found = search.exact_search(few, random_unit(2, seed=3), 6, search.kept_rows(few))
    assert (found[:, 4:] == -1).all()
    assert np.isneginf(cosines[:, 4:]).all()
    assert sorted(found[0, :4].tolist()) == search.kept_rows(few).tolist()


@pytest.mark.parametrize(("row", "refused"), [(1199, False), (1200, True)])
def test_a_row_that_the_bank_has_not_is_damage(bank, monkeypatch, row, refused):
    bank.index_path.unlink(missing_ok=True)
    monkeypatch.setattr(search, "exact_search", lambda *of: (None, np.array([[row, -1]])))
    query = random_unit(1)[0]
    if refused:
        with pytest.raises(UserError, match="is damaged"):
            bank.search(query, 2)
    else:
        assert [hit.row for hit in bank.search(query, 2)] == [row]


def test_an_index_that_is_not_there_says_what_makes_it(tmp_path: Path):
    few = write_bank(tmp_path / "f.parquet", rows(6), metadata())
    with pytest.raises(UserError, match=r"has no index .*reindex"):
        read_report(few)

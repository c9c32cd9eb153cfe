"""A bank in parts is read as one bank, and what does not belong together is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from random_bank import NAMES, metadata, random_unit, rows
from typer.testing import CliRunner

from aape.pipeline.bank import PromptBank, write, write_bank
from aape.pipeline.bank.folder import LISTING, Listing, bank_digest, write_folder
from aape.pipeline.bank.merge import merge_banks
from aape.pipeline.bank.schema import rows_to_table
from aape.pipeline.bank.statistics import bank_info, bank_statistics
from aape.pipeline.bank.verify import verify_bank
from aape.pipeline.commands.bank import bank_app
from aape.pipeline.errors import UserError
from aape.pipeline.store import write_record


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PromptBank:
    monkeypatch.setattr(write, "GROUP_ROWS", 20)  # several row groups a part
    return write_bank(tmp_path / "one.bank.parquet", rows(150), metadata())


@pytest.fixture
def parts(one: PromptBank, tmp_path: Path) -> PromptBank:
    return merge_banks([one.path], tmp_path / "toy.bank", parts=3)


def test_a_folder_says_what_one_file_says(one: PromptBank, parts: PromptBank) -> None:
    assert [file.path.name for file in parts.files] == [f"part-0000{i}.bank.parquet" for i in "012"]
    assert parts.content_hash == one.content_hash
    assert parts.metadata == one.metadata
    assert parts.table.equals(one.table)
    names = {id(file.footer.metadata) for file in parts.files}
    assert names == {id(parts.metadata)}, "the names of all classes are in memory once"
    assert bank_statistics(parts) == bank_statistics(one)
    for mine, other in zip(
        parts.reference_embeddings([2, 0]), one.reference_embeddings([2, 0]), strict=True
    ):
        np.testing.assert_array_equal(mine, other)
    assert parts.prompts(1) == one.prompts(1)
    query = "SELECT class_id, verdict, count(*) AS n, sum(embedding[1]) FROM bank GROUP BY 1, 2"
    by_class = sorted(parts.sql(query).to_pylist(), key=str)
    assert by_class == sorted(one.sql(query).to_pylist(), key=str)
    assert parts.sql("SELECT * FROM classes").equals(one.sql("SELECT * FROM classes"))
    assert bank_info(parts)["parts"] == 3


@pytest.mark.parametrize("kind", ["", "flat", "ivf", "ivfpq"])
def test_search_finds_the_same(one: PromptBank, parts: PromptBank, kind: str) -> None:
    if kind:
        parts.reindex(kind)
        assert parts.index_path == parts.path / "bank.faiss"
        assert verify_bank(parts.path).index == "sound"
    for query in random_unit(4, seed=9):
        found = PromptBank.open(parts.path).search(query, 5)
        assert [hit.row for hit in found] == [hit.row for hit in one.search(query, 5)]


def test_commands_take_a_folder(
    one: PromptBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def aape(*words: str) -> str:
        done = CliRunner().invoke(bank_app, list(words))
        assert done.exit_code == 0, done.output
        return done.output

    monkeypatch.chdir(tmp_path)
    said = aape("merge", str(one.path), "--out", "toy.bank", "--parts", "2")
    assert said.startswith("Wrote toy.bank and its index: 150 prompts")
    again = aape("merge", str(one.path), "--out", "toy.bank", "--parts", "2")
    assert again == said, "a merge can be asked for again"
    one.path.unlink()
    write_record(tmp_path / "toy.bank.parquet.answers" / LISTING, {"recipe": "r", "content": "c"})
    assert "150" in aape("info"), "the only bank in the current folder; its answers are none"
    assert json.loads(aape("stats", "toy.bank", "--json"))["rows"] == 150
    assert len(json.loads(aape("show", "toy.bank", "dog", "--json"))) == 50
    assert json.loads(aape("sql", "toy.bank", "SELECT count(*) AS n FROM bank", "--json")) == [
        {"n": 150}
    ]
    assert json.loads(aape("verify", "toy.bank", "--json"))["problems"] == []
    aape("reindex", "toy.bank", "--kind", "ivfpq")
    aape("card", "toy.bank")
    aape("merge", "toy.bank", "--out", "back.bank.parquet")
    aape("diff", "toy.bank", "back.bank.parquet")


def test_parts_are_written_one_after_another(tmp_path: Path) -> None:
    tables = [rows_to_table(rows(9, class_id=n, class_name=NAMES[n]), 8) for n in (0, 1)]
    tables[1] = tables[1].set_column(
        0, tables[1].schema.field("prompt_id"), [[f"q{row}" for row in range(9)]]
    )
    bank = write_folder(tmp_path / "b", iter(tables), metadata())
    assert len(bank) == 18
    assert verify_bank(bank.path).sound
    for wrong, said in [
        ([tables[0], tables[0]], "Two parts have one prompt id"),
        ([tables[1], tables[0]], "lies in a part before it too, or belongs there"),
        ([], "no row to write"),
    ]:
        with pytest.raises(UserError, match=said):
            write_folder(tmp_path / "c", iter(wrong), metadata())
        assert not (tmp_path / "c").exists()
    with pytest.raises(UserError, match="exists"):
        write_folder(tmp_path / "b", iter(tables), metadata())


def listed(folder: Path, **changes) -> None:
    """Write a sealed listing with changes, as somebody who knows how would."""
    said = Listing.model_validate(json.loads((folder / LISTING).read_text()))
    said = said.model_copy(update=changes)
    said = said.model_copy(update={"sha256": said.digest()})
    (folder / LISTING).write_text(json.dumps(said.model_dump()))


def test_what_does_not_belong_together_is_refused(
    one: PromptBank, parts: PromptBank, tmp_path: Path
) -> None:
    folder = parts.path
    listing = (folder / LISTING).read_text()
    entries = Listing.model_validate(json.loads(listing)).parts
    second = folder / entries[1].name

    (folder / LISTING).write_text(listing.replace(entries[0].seal[:8], "0" * 8))
    with pytest.raises(UserError, match=r"bank.json is damaged"):
        PromptBank.open(folder)
    for name in ("../one.bank.parquet", str(one.path), "part-00001.bank.parquet/../x"):
        listed(folder, parts=[entries[0].model_copy(update={"name": name})])
        with pytest.raises(UserError, match="names a part"):
            PromptBank.open(folder)
    twice = write_bank(
        tmp_path / "t.bank.parquet", rows(9, class_id=0, class_name="cat"), metadata()
    )
    shutil.copy(twice.path, folder / "part-00009.bank.parquet")
    same_class = entries[0].model_copy(
        update={"name": "part-00009.bank.parquet", "seal": twice.footer.seal}
    )
    listed(folder, parts=[entries[0], same_class])
    with pytest.raises(UserError, match=r"Class 0 of toy in part-00009\.bank\.parquet lies in a"):
        PromptBank.open(folder)
    other = write_bank(
        second, rows(9, class_id=1, class_name="dog"), metadata(encoder_fingerprint="other@0")
    )
    listed(folder, parts=[entries[0], entries[1].model_copy(update={"seal": other.footer.seal})])
    with pytest.raises(UserError, match="parts of two encoders are no bank"):
        PromptBank.open(folder)
    (folder / LISTING).write_text(listing)
    with pytest.raises(UserError, match="is not the part that belongs here"):
        PromptBank.open(folder)
    second.unlink()
    with pytest.raises(UserError, match=r"lacks its part part-00001.bank.parquet"):
        PromptBank.open(folder)
    (folder / LISTING).unlink()
    with pytest.raises(UserError, match="is a folder, not a bank"):
        PromptBank.open(folder)


def test_damage_in_a_part_is_named(parts: PromptBank) -> None:
    path = parts.files[1].path
    data = bytearray(path.read_bytes())
    data[parts.files[1].footer.groups[1].vectors + 5] ^= 1
    path.write_bytes(data)
    opened = PromptBank.open(parts.path)
    with pytest.raises(UserError, match=r"part-00001.bank.parquet is damaged in row group 4"):
        opened.reference_embeddings([1])
    report = verify_bank(parts.path)
    assert not report.sound
    assert "row group 4" in report.problems[0]


def test_an_index_of_other_rows_is_refused(parts: PromptBank, tmp_path: Path) -> None:
    parts.reindex()
    fewer = write_bank(tmp_path / "f.bank.parquet", rows(60, seed=5), metadata())
    other = merge_banks([fewer.path], tmp_path / "o.bank", parts=2)
    shutil.copy(parts.index_path, other.index_path)
    with pytest.raises(UserError, match="changed since the index"):
        PromptBank.open(other.path).search(random_unit(1)[0])


def test_a_part_that_changes_while_open_is_noticed(parts: PromptBank) -> None:
    opened = PromptBank.open(parts.path)
    parts.files[2].path.touch()
    with pytest.raises(UserError, match="changed while it was open"):
        opened.prompts(0)


def test_the_digest_stands_for_all_bytes(one: PromptBank, parts: PromptBank, tmp_path: Path):
    same = merge_banks([one.path], tmp_path / "again.bank", parts=3)
    fewer = merge_banks([one.path], tmp_path / "two.bank", parts=2)
    assert bank_digest(parts.path) == bank_digest(same.path) != bank_digest(fewer.path)

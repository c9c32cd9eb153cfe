"""A damaged bank is never used silently; a fault while writing leaves the old bank or the new."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import TESTS
from random_bank import metadata, random_unit, rows

from aape.pipeline.bank import PromptBank, write, write_bank
from aape.pipeline.bank.index import index_intact, read_report
from aape.pipeline.bank.verify import verify_bank
from aape.pipeline.errors import UserError
from aape.pipeline.files import exclusive


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A bank of five row groups with its index. Module-wide: tests work on copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "GROUP_ROWS", 8)
        bank = write_bank(tmp_path_factory.mktemp("sound") / "b.parquet", rows(40), metadata())
    bank.reindex()
    return bank


@pytest.fixture
def copy(sound, tmp_path):
    for path in (sound.path, sound.index_path):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / sound.path.name


def flip(path, position: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def test_a_sound_bank_verifies(sound):
    report = verify_bank(sound.path)
    assert report.sound
    assert (report.rows, report.row_groups, report.index) == (40, 5, "sound")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_every_flipped_bit_of_the_bank_is_found(sound, copy, position, bit):
    size = sound.path.stat().st_size
    position %= size
    copy.write_bytes(sound.path.read_bytes())
    flip(copy, position, bit)
    report = verify_bank(copy)
    assert not report.sound
    assert report.remedy
    ends = [group.end for group in sound.footer.groups]
    if 4 <= position < ends[-1]:  # in the rows: the row group is named, and only this one
        group = int(np.searchsorted(ends, position, side="right"))
        assert len(report.problems) == 1
        assert f"row group {group} " in report.problems[0]


def test_bytes_all_over_the_footer_count(sound, copy):
    whole = sound.path.read_bytes()
    for position in range(sound.footer.groups[-1].end, len(whole), 37):
        copy.write_bytes(whole)
        flip(copy, position, 0)
        with pytest.raises(UserError):
            PromptBank.open(copy)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(keep=st.integers(0, 10**9))
def test_a_truncated_bank_is_named(sound, copy, keep):
    whole = sound.path.read_bytes()
    keep %= len(whole)
    copy.write_bytes(whole[:keep])
    report = verify_bank(copy)
    assert not report.sound
    assert "truncated" in report.problems[0] or "not a prompt bank" in report.problems[0]


def test_damaged_rows_are_refused_when_used_and_others_still_read(sound, copy):
    group = sound.footer.groups[1]
    flip(copy, group.vectors + 17, 3)
    bank = PromptBank.open(copy)
    rows_of_class_0 = bank.class_rows(0)
    assert rows_of_class_0.start == 0
    with pytest.raises(UserError, match=r"damaged in row group 1 \(rows 8 to 15, toy class 0"):
        bank.reference_embeddings([0])
    with pytest.raises(UserError, match="row group 1"):
        bank.prompts(0)
    assert bank.prompts(2) == sound.prompts(2)


def test_sql_over_damaged_embeddings_is_refused(sound, copy):
    flip(copy, sound.footer.groups[2].vectors + 5, 1)
    with pytest.raises(UserError):
        PromptBank.open(copy).sql("SELECT max(embedding[1]) FROM bank")


def test_a_bank_that_another_program_rewrote_is_refused(sound, copy):
    import pyarrow.parquet as pq

    original = pq.ParquetFile(sound.path)
    table = original.read()
    table = table.replace_schema_metadata({b"aape.bank": original.metadata.metadata[b"aape.bank"]})
    pq.write_table(table, copy, store_schema=False)
    with pytest.raises(UserError, match=r"damaged in its footer|not a prompt bank"):
        PromptBank.open(copy)


# --- the index ---


def test_no_bit_of_the_trailer_of_the_index_can_turn(sound, copy):
    """Its digits as well: a recall of 0.95 that reads 0.85, and 8 lists that become 9."""
    index = copy.with_suffix(".faiss")
    whole = sound.index_path.read_bytes()
    bank = PromptBank.open(copy)

    def intact() -> bool:  # what verify_bank asks of an index
        try:
            return index_intact(bank, read_report(bank))
        except UserError:
            return False

    for position in range(len(whole) - 500, len(whole)):
        for bit in (0, 3, 5):
            index.write_bytes(whole)
            flip(index, position, bit)
            assert not intact(), (position - len(whole), bit)
    index.write_bytes(whole)
    assert intact()


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_every_flipped_bit_of_the_index_is_found_and_mended(sound, copy, position, bit):
    index = copy.with_suffix(".faiss")
    shutil.copy(sound.index_path, index)
    whole = sound.index_path.read_bytes()
    flip(index, position % len(whole), bit)
    report = verify_bank(copy)
    assert not report.sound
    assert not report.problems
    assert "reindex" in report.remedy
    with pytest.raises(UserError, match="reindex"):
        PromptBank.open(copy).search(random_unit(1)[0])
    PromptBank.open(copy).reindex()
    assert index.read_bytes() == whole


def test_the_index_of_a_bank_that_changed_is_refused(copy):
    write_bank(copy, rows(40, seed=1), metadata())
    bank = PromptBank.open(copy)
    with pytest.raises(UserError, match=r"changed since the index .* was built.*reindex"):
        bank.search(random_unit(1)[0])
    assert "changed" in verify_bank(copy).index
    assert len(bank.search(random_unit(1)[0], exact=True)) == 10
    bank.reindex()
    assert verify_bank(copy).sound


# --- faults while writing ---


@pytest.fixture
def bank(tmp_path):
    return write_bank(tmp_path / "toy.bank.parquet", rows(), metadata())


def test_two_writers_are_refused(bank):
    with exclusive(bank.path, "writing"), pytest.raises(UserError, match="Another process"):
        write_bank(bank.path, rows(), metadata())


def test_a_full_disk_is_a_sentence_and_the_old_bank_stays(bank, monkeypatch):
    before = bank.path.read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write._HashingStream, "write", full)
    with pytest.raises(UserError, match="No space left on the disk"):
        write_bank(bank.path, rows(60), metadata())
    assert bank.path.read_bytes() == before
    assert sorted(p.suffix for p in bank.path.parent.iterdir()) == [".lock", ".parquet"]


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from random_bank import metadata, rows
from aape.pipeline.bank import write_bank
old, new = rows(3000), rows(6000, seed=1)
print("ready", flush=True)
while True:
    write_bank(sys.argv[1], old, metadata())
    write_bank(sys.argv[1], new, metadata())
"""


@pytest.mark.slow
def test_killed_while_writing_leaves_the_old_bank_or_the_new(tmp_path):
    path = tmp_path / "killed.parquet"
    write_bank(path, rows(3000), metadata())
    good = {PromptBank.open(path).content_hash}
    good.add(write_bank(tmp_path / "new.parquet", rows(6000, seed=1), metadata()).content_hash)
    random = np.random.default_rng(5)
    for _ in range(8):
        command = [sys.executable, "-c", WRITER, str(path), str(TESTS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(random.uniform(0.01, 0.4))
            process.kill()
        bank = PromptBank.open(path)
        assert bank.content_hash in good
        assert len(bank.table) == len(bank)


@pytest.mark.parametrize("change", [{"kept": 0}, {"rows": 1}, {"class_id": 1}, {"start": 1}])
def test_a_directory_that_lies_is_not_sound(tmp_path: Path, monkeypatch, change) -> None:
    bank = write_bank(tmp_path / "b.parquet", rows(40), metadata())
    first, *others = bank.footer.classes
    lying = [first.model_copy(update=change), *others]
    footer = bank.footer.model_copy(update={"classes": lying})
    monkeypatch.setattr(PromptBank, "open", lambda path: PromptBank(bank.path, footer))
    assert any("directory" in problem for problem in verify_bank(bank.path).problems)


def test_a_directory_without_its_last_class_is_not_sound(tmp_path: Path, monkeypatch) -> None:
    bank = write_bank(tmp_path / "b.parquet", rows(40), metadata())
    footer = bank.footer.model_copy(update={"classes": bank.footer.classes[:-1]})
    monkeypatch.setattr(PromptBank, "open", lambda path: PromptBank(bank.path, footer))
    assert verify_bank(bank.path).problems == ["The directory has 27 of 40 rows."]


def test_of_many_wrong_classes_five_are_named(tmp_path: Path, monkeypatch) -> None:
    names = [f"class {number}" for number in range(7)]
    made = [replace(row, class_id=i % 7, class_name=names[i % 7]) for i, row in enumerate(rows(70))]
    bank = write_bank(tmp_path / "b.parquet", made, metadata(class_names=names))
    assert verify_bank(bank.path).sound
    lying = [entry.model_copy(update={"kept": entry.kept + 1}) for entry in bank.footer.classes]
    footer = bank.footer.model_copy(update={"classes": lying})
    monkeypatch.setattr(PromptBank, "open", lambda path: PromptBank(bank.path, footer))
    assert verify_bank(bank.path).problems == [
        f"The directory is wrong about the rows of toy class {number}." for number in range(5)
    ]


def test_a_class_of_one_row_is_sound(tmp_path: Path) -> None:
    assert verify_bank(write_bank(tmp_path / "b.parquet", rows(4), metadata()).path).sound


@pytest.mark.parametrize(
    ("length", "end", "message"),
    [
        (8, b"PAR1", "not a prompt bank"),  # whole, and no bank
        (9, b"PAR1", "truncated"),  # its footer would begin one byte within the first mark
        (8, b"PARX", "truncated"),
    ],
)
def test_a_footer_lies_between_the_two_marks(
    tmp_path: Path, length: int, end: bytes, message: str
) -> None:
    path = tmp_path / "b.parquet"
    path.write_bytes(b"PAR1" + bytes(8) + struct.pack("<I", length) + end)
    with pytest.raises(UserError, match=message):
        PromptBank.open(path)


@pytest.mark.parametrize("size", [4, 5, 7, 8, 11, 12])
def test_a_stump_of_a_bank_is_truncated(tmp_path: Path, size: int) -> None:
    """Shorter than a footer's length and mark, or than two marks."""
    path = tmp_path / "b.parquet"
    path.write_bytes(b"PAR1\0\0\0PAR1\0"[:size])
    with pytest.raises(UserError, match="is truncated: its end is missing"):
        PromptBank.open(path)


def test_of_what_cannot_be_opened_nothing_is_counted(tmp_path: Path) -> None:
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no end")
    report = verify_bank(tmp_path / "b.parquet")
    assert (report.rows, report.row_groups, report.content_hash) == (0, 0, "")
    assert report.index == "absent"
    assert not report.sound


@pytest.mark.parametrize(
    "groups",
    ["3", "[3]", "[{}]", '[{"end":-9}]', '[{"end":1e3}]', f'[{{"end":{2**70}}}]', '{"a":1}'],
)
def test_a_footer_of_any_json_is_a_damaged_one(tmp_path: Path, groups: str) -> None:
    body = write.KEY + b'{"seal":"x","metadata":{},"groups":' + groups.encode() + b"}"
    path = tmp_path / "b.parquet"
    path.write_bytes(b"PAR1" + body + struct.pack("<I", len(body)) + b"PAR1")
    with pytest.raises(UserError, match="is damaged in its footer"):
        PromptBank.open(path)

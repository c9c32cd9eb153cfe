"""What goes out of a bank comes back; what a merge or a wrong query says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from random_bank import metadata, rows
from typer.testing import CliRunner

from aape.pipeline.bank import PromptBank
from aape.pipeline.bank.card import bank_card, markdown_text
from aape.pipeline.bank.export import cupl_prompts, export_bank
from aape.pipeline.bank.index import read_report
from aape.pipeline.bank.write import write_bank
from aape.pipeline.commands.bank import bank_app
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.published import read_published


@pytest.fixture
def bank(tmp_path: Path) -> PromptBank:
    return write_bank(tmp_path / "a.bank.parquet", rows(30), metadata())


def test_an_exported_csv_is_read_again(bank: PromptBank, tmp_path: Path) -> None:
    export_bank(bank, "csv", tmp_path / "b.csv")
    again = read_published(tmp_path / "b.csv")
    assert again.format == "table"
    kept, _ = cupl_prompts(bank)
    assert again.texts == {name: texts for name, texts in kept.items() if texts}


def test_a_table_made_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("Class;Prompt\nmug;A cup with a handle.\nmug;Made of clay.\n")
    assert read_published(tmp_path / "p.csv").texts == {
        "mug": ["A cup with a handle.", "Made of clay."]
    }
    (tmp_path / "q.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"no columns for class names and texts.*a, b"):
        read_published(tmp_path / "q.csv")


def test_a_wrong_query_lists_the_columns(bank: PromptBank) -> None:
    with pytest.raises(UserError, match=r"(?s)nope.*class_name.*verdict.*embedding.*classes \("):
        bank.sql("SELECT nope FROM bank")


def test_merge_prints_a_sentence_and_builds_the_index(bank: PromptBank, tmp_path: Path) -> None:
    out = tmp_path / "m.bank.parquet"
    done = CliRunner().invoke(bank_app, ["merge", str(bank.path), str(bank.path), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"Wrote {out} and its index: 30 prompts")
    assert "PromptBank(" not in done.output
    assert read_report(PromptBank.open(out)).rows > 0


def test_cards_show_underscores_as_they_are(bank: PromptBank) -> None:
    assert markdown_text("class_name_2") == "class_name_2"
    assert markdown_text("_x_ __y") == "&#95;x&#95; &#95;&#95;y", "emphasis stays text"
    assert "a_b" in markdown_text("a_b*")
    assert bank.metadata.encoder_fingerprint in bank_card(bank)


def test_a_merge_can_be_asked_for_again(bank: PromptBank, tmp_path: Path) -> None:
    """A kill after the bank and before its index: the same command ends it."""
    from aape.pipeline.bank.verbs import bank_merge

    other = write_bank(tmp_path / "o.bank.parquet", rows(9, seed=5, dataset="toy"), metadata())
    with pytest.raises(UserError, match="exists"):
        bank_merge([bank.path, bank.path], other.path)
    out = tmp_path / "m.bank.parquet"
    first = bank_merge([bank.path, bank.path], out)
    whole = PromptBank.open(out).index_path.read_bytes()
    written = out.stat().st_mtime_ns
    PromptBank.open(out).index_path.unlink()
    assert bank_merge([bank.path, bank.path], out) == first
    assert PromptBank.open(out).index_path.read_bytes() == whole
    assert out.stat().st_mtime_ns == written
    assert sorted(p.name for p in tmp_path.iterdir() if ".~" in p.name) == []


def test_an_export_is_a_whole_folder_or_none(
    bank: PromptBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("aape.pipeline.bank.export.bank_card", fail)
        with pytest.raises(UserError, match="No space left"):
            export_bank(bank, "hf", tmp_path / "hub")
    assert sorted(p.name for p in tmp_path.iterdir() if "hub" in p.name) == []
    export_bank(bank, "hf", tmp_path / "hub")
    with pytest.raises(UserError, match="not empty"):
        export_bank(bank, "hf", tmp_path / "hub")


def test_formulas_are_text_and_come_back(tmp_path: Path) -> None:
    texts = ["=1+1", "+a", "-b", "@c", "\tx", "'=d", "'tis", "plain"]
    names = ["=cmd|'/C calc'!A0", "dog", "cat"]
    given = [replace(row, text=texts[i % 8]) for i, row in enumerate(
        rows(24, names=names, verdict="kept"))]  # fmt: skip
    about = metadata(class_names=[*names, "none"])
    bank = write_bank(tmp_path / "f.bank.parquet", given, about)
    export_bank(bank, "csv", tmp_path / "f.csv")
    for line in (tmp_path / "f.csv").read_text(encoding="utf-8").splitlines()[1:]:
        assert not any(cell.startswith(("=", "+", "@")) for cell in line.split(","))
    kept, _ = cupl_prompts(bank)
    again = read_published(tmp_path / "f.csv").texts
    assert set(again) == {name for name, texts in kept.items() if texts}
    assert {t.strip() for t in again[names[0]]} == {t.strip() for t in kept[names[0]]}

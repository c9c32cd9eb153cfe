"""What goes out of a bank comes back; what a merge or a wrong query says."""

from __future__ import annotations

from pathlib import Path

import pytest
from random_bank import metadata, rows
from typer.testing import CliRunner

from aape.pipeline.bank import PromptBank
from aape.pipeline.bank.card import bank_card, markdown_text
from aape.pipeline.bank.export import cupl_prompts, export_bank
from aape.pipeline.bank.search import read_report
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

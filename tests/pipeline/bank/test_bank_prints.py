"""Banks on a terminal: the right rows under the right heads, and nothing that steers it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_bank import NAMES, metadata, rows

from aape.pipeline.bank import PromptBank, write_bank
from aape.pipeline.bank.diff import diff_banks
from aape.pipeline.bank.search import SearchHit
from aape.pipeline.bank.statistics import bank_statistics
from aape.pipeline.bank.verify import verify_bank
from aape.pipeline.commands import print_bank
from aape.pipeline.commands.print_bank import visible


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "120")

    def print_and_read(what, *given) -> list[str]:
        what(*given)
        return [
            " ".join(line.replace("│", " ").split())
            for line in capsys.readouterr().out.splitlines()
        ]

    return print_and_read


def test_a_cell_is_text_whatever_it_holds() -> None:
    assert visible(0.123456) == "0.1235"
    assert visible([0.5, 0.25, 1.0] * 4) == "[0.500, 0.250, 1.000, … 12 numbers]"
    assert visible([0.5, 0.25]) == "[0.5, 0.25]"
    assert visible({"a": "b\x1b[31m"}) == r'{"a": "b\u001b[31m"}'
    assert visible("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert visible(None) == ""


def test_what_all_prompts_share_stands_above_them(said) -> None:
    head = ["data set", "id", "class", "prompt"]
    one = [["toy", 3, "cat", "it purrs"], ["toy", 3, "cat", "it has [red]fur[/red]"]]
    lines = said(print_bank.print_prompts, head, one)
    assert lines[0] == "toy 3 cat"
    assert "it has [red]fur[/red]" in lines
    assert not any("data set" in line for line in lines)
    two = [*one, ["toy", 4, "dog", "it barks"]]
    lines = said(print_bank.print_prompts, head, two)
    assert "data set id class prompt" in lines
    assert "toy 4 dog it barks" in lines
    assert said(print_bank.print_prompts, head, []) == said(print_bank.print_table, head, [])


def test_hits_name_their_data_set_where_there_are_two(said) -> None:
    hits = [SearchHit(0.51239, 1, "p", "toy", 0, "cat", "it purrs")]
    assert "0 cat 0.5124 it purrs" in said(print_bank.print_hits, hits)
    hits.append(SearchHit(0.2, 1, "p", "zoo", 1, "dog", "it barks"))
    assert "zoo 1 dog 0.2000 it barks" in said(print_bank.print_hits, hits)


def test_of_many_classes_those_with_the_fewest_prompts_are_shown(said, tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(25)]
    bank = write_bank(tmp_path / "b.parquet", rows(70, names=names), metadata(class_names=names))
    statistics = bank_statistics(bank)
    few = " ".join(said(print_bank.print_statistics, statistics, False))
    assert "The 20 classes with the fewest kept prompts (all: --all)" in few
    shown = [i for i in range(25) if f" class {i} " in f"{few} "]
    assert shown == list(range(3, 23)), "those of the first three have prompts"
    every = " ".join(said(print_bank.print_statistics, statistics, True))
    assert [i for i in range(25) if f" class {i} " in f"{every} "] == list(range(25))
    assert "0 class 0 19 5 duplicate" in every


def test_a_difference_is_counted_and_its_first_changes_are_told(said, tmp_path: Path) -> None:
    first = rows(12)
    changed = [replace(first[0], text="another text"), *first[1:11]]
    before = write_bank(tmp_path / "a.parquet", first, metadata())
    after = write_bank(tmp_path / "b.parquet", changed, metadata(preprocessing="other"))
    lines = said(print_bank.print_diff, diff_banks(before, after))
    assert {"added 0", "removed 1", "changed 1"} <= set(lines)
    assert any("text" in line and line.endswith("another text") for line in lines)
    assert any(line.startswith("preprocessing") and line.endswith("other") for line in lines)
    assert said(print_bank.print_diff, diff_banks(before, before)) == [
        "The banks hold the same prompts with the same vectors."
    ]


def test_a_sound_bank_is_said_to_be_sound(said, tmp_path: Path) -> None:
    bank = write_bank(tmp_path / "a.parquet", rows(12), metadata())
    lines = said(print_bank.print_verify, verify_bank(bank.path))
    assert lines == ["12 rows in 1 row group: every checksum agrees.", "Index: absent"]


def test_the_means_of_a_bank_are_those_of_all_its_classes(tmp_path: Path) -> None:
    bank = PromptBank.open(
        write_bank(tmp_path / "a.parquet", rows(30), metadata(class_names=NAMES[:3])).path
    )
    padded, mask = bank.reference_embeddings()
    for mean, vectors, kept in zip(bank.mean_embeddings(), padded, mask, strict=True):
        wanted = vectors[kept].mean(0)
        np.testing.assert_allclose(mean, wanted / np.linalg.norm(wanted), atol=1e-6)

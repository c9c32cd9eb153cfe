"""What strangers wrote reaches the terminal as text, never as a command to it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import REPOSITORY
from rich.table import Table

from aape.cli import main
from aape.pipeline.terminal import console, json_text, visible

EVIL = "a\x1b[2J\x9b31m\x07\x7f\u202eb\rc"


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_that_steers_is_left(text: str) -> None:
    shown = visible(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", shown)
    shown.encode("utf-8")  # lone surrogates would end the program


@given(st.recursive(st.text(st.characters(exclude_categories=())) | st.floats(), st.lists))
def test_json_says_the_same_and_steers_nothing(value: object) -> None:
    text = json_text(value, indent=2)
    assert visible(text) == text
    text.encode("utf-8")
    expected = json.dumps(value).replace("NaN", "null").replace("-Infinity", "null")
    if "Infinity" not in expected and "null" not in expected:
        assert json.loads(text) == value


def test_letters_of_all_languages_stay() -> None:
    kept = "naïve 猫　二 \u00a0 می\u200cخواهم 👩\u200d🚀\n\tend"
    assert visible(kept) == kept


def test_a_table_of_rich_keeps_its_colours_and_no_others() -> None:
    out = io.StringIO()
    table = Table("name", header_style="bold")
    table.add_row(EVIL)
    console(file=out, force_terminal=True, width=80, color_system="standard").print(table)
    text = out.getvalue()
    assert "\x1b[1m" in text
    assert "\x1b[2J" not in text
    assert r"\x1b[2J" in text
    assert "\x9b" not in text
    assert "\u202e" not in text


def test_an_error_shows_a_strangers_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["datasets", "show", f"{EVIL}.yaml"])
    said = capsys.readouterr().err
    assert r"\x1b[2J" in said
    assert "\x1b" not in said


def test_commands_print_through_one_door() -> None:
    """No command prints by another way; a new one that does fails here."""
    for folder in ("pipeline", "adapter"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if path != Path(REPOSITORY / "pipeline" / "terminal.py"):
                found = re.search(r"typer\.echo\(|(?<![\w.])Console\(|click\.echo", text)
                assert found is None, f"{path}: {found and found[0]}"

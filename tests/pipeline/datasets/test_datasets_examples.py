"""`datasets show` with pictures: drawn on terminals that can, never into a pipe."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from aape.pipeline.commands.print_examples import escape, print_examples, protocol_of
from aape.pipeline.datasets import load_manifest
from aape.pipeline.datasets.add import add_dataset


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    for name in ("mug", "plate"):
        for i in range(3):
            path = tmp_path / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((400, 200), 60 + i).save(path)
    add_dataset(tmp_path / "photos", "mine")
    return tmp_path / "photos"


def test_kitty_draws_small_pictures(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-kitty")
    monkeypatch.delenv("TMUX", raising=False)
    terminal = Terminal()
    print_examples(load_manifest("mine"), terminal)
    text = terminal.getvalue()
    assert "example: mug: " in text
    assert "example: plate: " in text
    chunks = re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b\\\\", text)
    assert len(chunks) > 2, "a picture is sent in chunks"
    assert all(len(data) <= 4096 for _, data in chunks)
    first = []
    for keys, data in chunks:
        first.append(data)
        if keys.endswith("m=0"):
            break
    with Image.open(io.BytesIO(base64.b64decode("".join(first)))) as picture:
        assert picture.size == (160, 80)


def test_a_pipe_gets_paths_only(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-kitty")
    stream = io.StringIO()
    print_examples(load_manifest("mine"), stream)
    assert "\x1b" not in stream.getvalue()
    assert str(photos) in stream.getvalue()


def test_which_terminals_draw() -> None:
    known = {"TERM_PROGRAM": "iTerm.app"}
    assert protocol_of(known, is_terminal=True) == "iterm"
    assert protocol_of(known | {"TMUX": "1"}, is_terminal=True) == ""
    assert protocol_of({"TERM": "xterm-256color"}, is_terminal=True) == ""
    assert escape(b"abc", "iterm") == "\x1b]1337;File=inline=1;size=3:YWJj\a"

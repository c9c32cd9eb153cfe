"""`datasets show` with pictures: drawn on terminals that can, never into a pipe."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aape.pipeline.commands.print_examples import escape, print_examples, protocol_of
from aape.pipeline.commands.sixel import sixels
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


def decoded(text: str) -> np.ndarray:
    """Draw sixels by the manual of the VT340: (h, w, 3) in percent."""
    match = re.fullmatch('\x1bP0;1q"1;1;([0-9]+);([0-9]+)(.*)\x1b\\\\', text, re.DOTALL)
    assert match
    width, height = int(match[1]), int(match[2])
    canvas = np.full((height + 5, width, 3), -1)
    palette: dict[str, list[int]] = {}
    colour, x, y = "", 0, 0
    for token in re.findall(r"#\d+;2;\d+;\d+;\d+|#\d+|!\d+.|[$-]|[?-~]", match[3]):
        if token.startswith("#"):
            colour, _, mixed = token.partition(";2;")
            if mixed:
                palette[colour] = [int(part) for part in mixed.split(";")]
        elif token in "$-":
            x, y = 0, y + 6 * (token == "-")
        else:
            count = int(token[1:-1]) if token.startswith("!") else 1
            for row in range(6):
                if ord(token[-1]) - 63 >> row & 1:
                    canvas[y + row, x : x + count] = palette[colour]
            x += count
    return canvas[:height]


@pytest.mark.parametrize("size", [(1, 1), (7, 6), (64, 47)])
def test_sixels_are_the_picture(size: tuple[int, int]) -> None:
    image = Image.merge("RGB", [Image.effect_noise(size, spread) for spread in (20, 60, 120)])
    drawn = decoded(sixels(image))
    asked = np.asarray(image.quantize(255).convert("RGB")) / 255 * 100
    assert drawn.min() >= 0, "every pixel is drawn"
    assert np.abs(drawn - asked).max() <= 0.5


def test_examples_are_drawn_as_an_encoder_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A phone's photo stands upright, and 16 bits are not white."""
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AAPE_PICTURES", "sixel")
    for name in ("turned", "wide"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40), "red").save(tmp_path / "photos" / "turned" / "0.jpg", exif=exif)
    wide = np.full((40, 40), 65535 // 4, dtype=np.uint16)
    Image.fromarray(wide).save(tmp_path / "photos" / "wide" / "0.png")
    add_dataset(tmp_path / "photos", "phone")
    terminal = Terminal()
    print_examples(load_manifest("phone"), terminal)
    turned, grey = (decoded(text) for text in re.findall("\x1bP.*?\x1b\\\\", terminal.getvalue()))
    assert turned.shape[:2] == (80, 40)
    assert np.abs(grey - 25).max() <= 1


def test_which_terminals_draw() -> None:
    known = {"TERM_PROGRAM": "iTerm.app"}
    assert protocol_of(known, is_terminal=True) == "iterm"
    assert protocol_of(known | {"TMUX": "1"}, is_terminal=True) == ""
    assert protocol_of({"TERM": "xterm-256color"}, is_terminal=True) == ""
    for sixel in (
        {"TERM": "foot-extra"},
        {"TERM": "mlterm-256color"},
        {"TERM": "xterm-256color", "TERM_PROGRAM": "mintty"},
        {"TERM": "xterm-256color", "WT_SESSION": "b1"},
        {"TERM": "xterm-256color", "KONSOLE_VERSION": "230801"},
        {"TERM": "xterm-256color", "AAPE_PICTURES": "sixel"},
    ):
        assert protocol_of(sixel, is_terminal=True) == "sixel"
        assert protocol_of(sixel, is_terminal=False) == ""
        assert protocol_of(sixel | {"AAPE_PICTURES": "none"}, is_terminal=True) == ""
    assert protocol_of({"KONSOLE_VERSION": "211203"}, is_terminal=True) == ""
    assert protocol_of({"TERM": "tmux-256color", "WT_SESSION": "b1"}, is_terminal=True) == ""
    assert escape(b"abc", "iterm") == "\x1b]1337;File=inline=1;size=3:YWJj\a"

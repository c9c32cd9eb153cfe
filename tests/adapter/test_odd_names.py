"""Names as no one types them on purpose: too long, no text, empty, and patterns that go round."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fakes import PixelEncoder
from small_runs import random_photo, small_run

from aape.adapter.captions.listed_photos import listed_photos
from aape.adapter.captions.search import PhotoSearch
from aape.adapter.export import export
from aape.adapter.open_model import open_model
from aape.adapter.predict import predict
from aape.pipeline.datasets.patterns import matching_images
from aape.pipeline.embed.texts import encode_texts
from aape.pipeline.errors import UserError
from aape.pipeline.files import write_text

LONG = "a" * 300
NO_TEXT = "caf\udce9"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, PixelEncoder]:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    encoder = PixelEncoder()
    return small_run(tmp_path / "run", encoder).path, encoder


def test_a_pattern_finds_each_real_photo_once(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "loop" / "m"
    folder.mkdir(parents=True)
    photo = random_photo(folder / "a.png")
    for hidden in ("@eaDir", ".trash"):
        (folder / hidden).mkdir()
        shutil.copy(photo, folder / hidden / "a.png")
    (folder / "self").symlink_to(".")
    (folder.parent / "n").symlink_to("m")
    (folder / "b.png").symlink_to("a.png")
    monkeypatch.chdir(tmp_path)
    for pattern in ("loop/**/*.png", "loop/**", "loop/*", "loop/*/*.png", "**/m", "**/[a-z].png"):
        for written in (pattern, str(tmp_path / pattern)):
            assert [p.resolve() for p in matching_images(written).images] == [photo], pattern
    assert not matching_images("loop/**/*.jpg").images
    assert not matching_images("loop/m/@*/*.png").images


def test_what_is_no_name_is_one_sentence(run: tuple[Path, PixelEncoder], tmp_path: Path) -> None:
    photo = random_photo(tmp_path / "a.png")
    folder, encoder = run
    ways = [
        (lambda: predict(folder, [LONG], encoder=encoder), "There is no image"),
        (lambda: predict(folder, [""], encoder=encoder), "name of an image is empty"),
        (lambda: predict(LONG, [photo], encoder=encoder), "not a run folder"),
        (lambda: listed_photos([LONG]), "There is no photo"),
        (lambda: listed_photos([""]), "name of a photo is empty"),
        (lambda: PhotoSearch([photo], encoder=encoder).like(LONG), "There is no photo"),
        (lambda: PhotoSearch([photo], encoder=encoder).text(NO_TEXT), "no text in UTF-8"),
        (lambda: encode_texts(encoder, [NO_TEXT], cache=False), "no text in UTF-8"),
    ]
    for way, told in ways:
        with pytest.raises(UserError, match=told):
            way()
    for model in (folder, open_model(folder, encoder=encoder)):
        for words, told in (
            ({"top": 0}, "top is 0"), ({"classes": ["", "x"]}, "class is empty"),
            ({"also": " "}, "class is empty"), ({"also": NO_TEXT}, "no text in UTF-8"),
            ({"classes": [NO_TEXT]}, "no text in UTF-8"),
        ):  # fmt: skip
            with pytest.raises(UserError, match=told):
                predict(model, [photo], encoder=encoder, **words)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder where nothing can be made")
def test_a_place_where_nothing_can_be_made_is_one_sentence(run: tuple[Path, PixelEncoder]) -> None:
    for way in (
        lambda: write_text("/proc/o.csv", "x"),
        lambda: export(run[0], "/proc/x", format="folder"),
        lambda: export(run[0], "/proc/x/y/z.onnx", encoder=run[1]),
    ):
        with pytest.raises(UserError, match="Cannot write /proc"):
            way()


def test_a_photo_named_in_no_text_is_written_to_every_format(
    run: tuple[Path, PixelEncoder], tmp_path: Path
) -> None:
    source = random_photo(tmp_path / "a.png")
    photo = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    try:
        source.rename(photo)
    except OSError:
        pytest.skip("names are text on this disk")
    for suffix in ("csv", "json", "jsonl", "parquet"):
        out = tmp_path / f"out.{suffix}"
        predict(run[0], [photo], encoder=run[1], out=out)
        out.read_bytes().decode("utf-8", "strict" if suffix != "parquet" else "replace")
    (name,) = pq.read_table(tmp_path / "out.parquet")["path"].to_pylist()
    assert name.endswith(r"caf\udce9.png")


@pytest.mark.slow
def test_names_that_are_too_long_end_the_command_in_words(aape, tmp_path: Path) -> None:
    for words in (
        ("datasets", "add", LONG, "--name", "x"), ("predict", LONG, "a.png"),
        ("explain", LONG, "a.png"), ("search", "--encoder", "lite", LONG, "dog"), ("report", LONG),
    ):  # fmt: skip
        done = aape(*words, cwd=tmp_path)
        assert done.returncode == 2, words
        assert "Traceback" not in done.stderr
        assert done.stderr.strip().splitlines()[-1].startswith("aape: "), done.stderr

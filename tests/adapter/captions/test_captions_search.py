"""The kept index of photos: what is encoded again and what never, and what a sentence finds."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from fake_captions import FakeDataset
from fakes import ColourEncoder, PixelEncoder
from PIL import Image
from typer.testing import CliRunner

from aape import cli
from aape.adapter.captions import choose_query, listed_photos, photo_index, search
from aape.adapter.captions import run as caption_run
from aape.adapter.captions.choose_query import ChosenQuery, MixedFeature, PlainFeature
from aape.adapter.captions.photo_index import PhotoIndex
from aape.adapter.captions.run import run_captions
from aape.adapter.captions.search import PhotoSearch
from aape.adapter.captions.settings import CaptionConfig, CaptionRunConfig
from aape.adapter.commands.search import parted
from aape.pipeline.config import EncoderConfig
from aape.pipeline.errors import UserError
from aape.pipeline.files import hash_file
from aape.pipeline.store import read_record, write_record, write_tensors


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve photos of noise, last changed an hour ago."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(12):
        path = folder / ("deep" if number % 2 else ".") / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return folder


def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every file had been there for long before it was looked at."""
    monkeypatch.setattr(photo_index, "_FRESH_NS", -(10**12))


def open_index(folder: Path, encoder: PixelEncoder) -> PhotoIndex:
    return PhotoIndex([folder], encoder, PlainFeature())


def exact(folder: Path, encoder: PixelEncoder, query: np.ndarray) -> list[Path]:
    """All photos, the nearest first, without an index."""
    paths = sorted(folder.rglob("*.png"))
    rows = []
    for path in paths:
        with Image.open(path) as picture:
            rows.append(encoder.encode_images(encoder.transform(picture)[None])[0].numpy())
    return [paths[i] for i in np.argsort(-(np.array(rows) @ query), kind="stable")]


def test_the_index_finds_what_looking_at_each_finds(photos: Path) -> None:
    encoder = PixelEncoder()
    query = encoder.encode_text(["anything"])[0]
    found = open_index(photos, encoder).search(query, 5)
    assert [path for path, _ in found] == exact(photos, encoder, query)[:5]
    assert [cosine for _, cosine in found] == sorted((c for _, c in found), reverse=True)
    assert len(open_index(photos, encoder).search(query, 99)) == 12


def test_a_second_search_opens_no_photo(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(monkeypatch)
    first = open_index(photos, PixelEncoder())
    assert (first.update.photos, first.update.added, first.update.removed) == (12, 12, 0)
    monkeypatch.setattr(photo_index, "hash_file", None)  # not even for its hash
    monkeypatch.setattr(photo_index, "open_photos", None)
    again = open_index(photos, PixelEncoder())
    assert (again.update.photos, again.update.added, again.update.removed) == (12, 0, 0)
    query = PixelEncoder().encode_text(["anything"])[0]
    assert again.search(query, 12) == first.search(query, 12)


def test_what_changed_is_encoded_and_what_went_is_gone(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    encoder = PixelEncoder()
    open_index(photos, encoder)
    before = encoder.images
    (photos / "0.png").unlink()
    (photos / "2.png").rename(photos / "moved.png")
    shutil.copy(photos / "4.png", photos / "copy.png")
    Image.new("RGB", (8, 8), "red").save(photos / "6.png")
    Image.new("RGB", (8, 8), "blue").save(photos / "new.png")
    index = open_index(photos, encoder)
    assert encoder.images - before == 2  # the changed one and the new one; moves and copies: none
    assert (index.update.photos, index.update.added, index.update.removed) == (13, 2, 2)
    query = encoder.encode_text(["anything"])[0]
    # copies are equally near, so their order is not compared
    names = {path.name for path, _ in index.search(query, 99)}
    assert names == {path.name for path in photos.rglob("*.png")}
    top = exact(photos, encoder, query)
    assert index.search(query, 1)[0][0] == top[0]


def test_a_change_within_the_same_tick_is_seen(photos: Path) -> None:
    """Same size, same time of change: the file was too fresh to be believed the first time."""
    encoder = PixelEncoder()
    path = photos / "new.bmp"
    Image.new("RGB", (8, 8), "red").save(path)
    status = path.stat()
    open_index(photos, encoder)
    Image.new("RGB", (8, 8), "blue").save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert open_index(photos, encoder).update.added == 1


@pytest.mark.parametrize("name", ["vectors.safetensors", "photos.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_index_is_built_again(photos: Path, name: str, damage: str) -> None:
    encoder = PixelEncoder()
    first = open_index(photos, encoder)
    query = encoder.encode_text(["anything"])[0]
    path = first.folder / name
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    images = encoder.images
    assert open_index(photos, encoder).search(query, 12) == first.search(query, 12)
    assert encoder.images == images  # features are kept by themselves


def test_an_index_of_the_first_versions_is_built_again_with_one_sentence(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They kept FAISS's own file beside a table that began with its CRC."""
    lines: list[str] = []
    monkeypatch.setattr(photo_index, "step", lines.append)
    encoder = PixelEncoder()
    first = open_index(photos, encoder)
    (first.folder / "vectors.safetensors").unlink()
    (first.folder / "photos.faiss").write_bytes(b"IxM2")
    (first.folder / "photos.json").write_text('0badc0de\n{"photos": []}')
    images, query = encoder.images, encoder.encode_text(["anything"])[0]
    assert open_index(photos, encoder).search(query, 12) == first.search(query, 12)
    assert [line for line in lines if "earlier version" in line] == lines
    assert len(lines) == 1
    assert encoder.images == images
    assert not (first.folder / "photos.faiss").exists()
    lines.clear()
    assert open_index(photos, encoder).update.added == 0
    assert not lines


def test_a_table_of_another_shape_is_made_again(photos: Path) -> None:
    encoder = PixelEncoder()
    first = open_index(photos, encoder)
    query = encoder.encode_text(["anything"])[0]
    table = read_record(first.folder / "photos.json")
    for strange in ({"photos": [[1, 2]]}, {"photos": 3}, {"unreadable": 7}, {"looked_ns": "x"}):
        write_record(first.folder / "photos.json", table | strange)
        assert open_index(photos, encoder).search(query, 12) == first.search(query, 12)
    write_tensors(first.folder / "vectors.safetensors", {"vectors": np.zeros((3, 2))}, {})
    assert open_index(photos, encoder).search(query, 12) == first.search(query, 12)


def test_another_encoder_has_another_index(photos: Path) -> None:
    first = open_index(photos, PixelEncoder("one"))
    second = open_index(photos, PixelEncoder("second"))
    assert first.folder != second.folder
    assert second.update.added == 12


def test_unreadable_photos_are_named_and_left_out(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    lines: list[str] = []
    links: list[str] = []
    monkeypatch.setattr(photo_index, "step", lines.append)
    monkeypatch.setattr(listed_photos, "step", links.append)
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    (photos / "empty.jpg").touch()
    Image.fromarray(np.full((9, 9), 5e6, dtype=np.float32)).save(photos / "range.tif")
    (photos / "nowhere.jpg").symlink_to(photos / "absent.jpg")
    for _ in range(2):  # the second time from the table
        index = open_index(photos, PixelEncoder())
        assert index.update.photos == 12
        said = lines.pop()
        assert "3 of 15 photos cannot be read" in said
        assert all(name in said for name in ("broken.png", "empty.jpg", "range.tif"))
        assert "nowhere.jpg" in links.pop()
    bare = photos / "bare"
    bare.mkdir()
    (bare / "empty.jpg").touch()
    with pytest.raises(UserError, match="None of the photos can be read"):
        open_index(bare, PixelEncoder())


def test_photo_to_photo_leaves_out_itself_and_copies(photos: Path) -> None:
    shutil.copy(photos / "0.png", photos / "copy.png")
    near = Image.open(photos / "0.png").convert("RGB")
    near.putpixel((0, 0), (0, 0, 0))
    near.save(photos / "near.png")
    found = search.search(photos, like=photos / "0.png", encoder=PixelEncoder(), k=3)
    assert found[0].path.name == "near.png"
    assert not {"0.png", "copy.png"} & {hit.path.name for hit in found}
    assert len(found) == 3
    assert hash_file(photos / "copy.png") == hash_file(photos / "0.png")


def test_what_cannot_be_searched_for(photos: Path, tmp_path: Path) -> None:
    encoder = PixelEncoder()
    for wrong in ({}, {"text": "a", "like": photos / "0.png"}):
        with pytest.raises(UserError, match="Search for one thing"):
            search.search(photos, encoder=encoder, **wrong)
    with pytest.raises(UserError, match="nothing to search for"):
        search.search(photos, "  ", encoder=encoder)
    with pytest.raises(UserError, match="There is no photo"):
        search.search(photos, like=tmp_path / "nothing.jpg", encoder=encoder)
    with pytest.raises(UserError, match="no photo or folder"):
        search.search(tmp_path / "nowhere", "a", encoder=encoder)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run trained on captions of the four colours."""
    data = FakeDataset(tmp_path)
    for module in (caption_run, choose_query):
        monkeypatch.setattr(module, "open_dataset", lambda name, root=None: data)
    for name in ("load_encoder", "open_encoder"):
        monkeypatch.setattr(caption_run, name, lambda *_: ColourEncoder())
    config = CaptionRunConfig(
        dataset="fake",
        encoder=EncoderConfig(name="fake"),
        captions=CaptionConfig(epochs=30, batch_size=16, lr=0.01),
        seeds=[1, 2],
    )
    results = run_captions(config, tmp_path / "run")
    assert any("as validation chose" in note for note in results.notes)
    return tmp_path / "run"


def test_a_run_searches_as_validation_chose(run: Path, tmp_path: Path) -> None:
    chosen = ChosenQuery.model_validate(read_record(run / choose_query.FILE))
    assert chosen.mean_recall > chosen.plain_recall + 5
    opened = PhotoSearch([tmp_path / "pictures"], run=run, encoder=ColourEncoder())
    assert isinstance(opened.compared, MixedFeature)
    assert opened.compared.weight == chosen.weight > 0
    assert f"seed {chosen.seed}" in opened.says
    names = {path: name for name, path in FakeDataset(tmp_path).rows}
    found = opened.text("a green field", 12)
    colours = [names[hit.path] for hit in found]
    assert colours.count("green") == 12
    assert opened.like(found[0].path, 1)[0].path != found[0].path


def test_the_choice_is_made_again_for_other_generators(run: Path, tmp_path: Path) -> None:
    path = run / choose_query.FILE
    kept = read_record(path)
    write_record(path, kept | {"generators": "others", "weight": 0.0})
    PhotoSearch([tmp_path / "pictures"], run=run, encoder=ColourEncoder())
    assert read_record(path) == kept
    write_record(path, kept | {"weight": 7})
    with pytest.raises(UserError, match="weight"):
        PhotoSearch([tmp_path / "pictures"], run=run, encoder=ColourEncoder())


def test_a_run_of_another_encoder_is_refused(run: Path, tmp_path: Path) -> None:
    other = ColourEncoder()
    other.weights_hash = "f" * 64
    with pytest.raises(UserError, match="trained on features of"):
        PhotoSearch([tmp_path / "pictures"], run=run, encoder=other)


def test_words_of_the_command_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    assert parted([str(run), "a", "b", "two dogs"], "", False) == (run, ["a", "b"], "two dogs")
    assert parted(["a", "two dogs"], "lite", False) == (None, ["a"], "two dogs")
    assert parted([str(run), "a"], "", True) == (run, ["a"], "")
    assert parted(["a", "x" * 999], "", False)[2] == "x" * 999
    for wrong in (["a"], [str(run), "two dogs"]):
        with pytest.raises(UserError, match="both needed"):
            parted(wrong, "", False)
    with pytest.raises(UserError, match="not a sentence"):
        parted(["a", str(tmp_path)], "", False)


def test_the_verb_prints_json(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "load_encoder", lambda *_: PixelEncoder())
    words = ["search", "--encoder", "fake", str(photos), "a dog", "-k", "2", "--json"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert len(rows) == 2
    assert rows[0]["cosine"] >= rows[1]["cosine"]
    assert Path(rows[0]["path"]).is_relative_to(photos)


def test_sentences_from_standard_input_are_answered_one_by_one(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "load_encoder", lambda *_: ColourEncoder())
    words = ["search", "--encoder", "colours", str(photos), "-", "-k", "2"]
    read = {"input": "red\n\n  blue sky\n"}
    lines = CliRunner().invoke(cli.app, [*words, "--json"], **read).stdout.splitlines()
    said = [json.loads(line) for line in lines]
    assert [one["text"] for one in said] == ["red", "blue sky"]
    opened = PhotoSearch([photos], encoder=ColourEncoder())
    for one in said:
        assert one["hits"] == [hit.as_dict() for hit in opened.text(one["text"], 2)]
    plain = CliRunner().invoke(cli.app, words, **read).stdout.splitlines()
    assert [plain[0], plain[3]] == ["red", "blue sky"]
    assert len(plain) == 6


def test_two_searches_at_once_wait_for_each_other(photos: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: open_index(photos, PixelEncoder()).update.photos, range(3)))
    assert found == [12] * 3
    assert time.monotonic() - began < 60

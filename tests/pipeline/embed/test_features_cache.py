"""The caches of texts and images: nothing twice, nothing stale, nothing lost by a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import PixelEncoder
from PIL import Image
from places import TESTS
from safetensors import safe_open
from safetensors.numpy import save_file

from aape.pipeline.embed import shards
from aape.pipeline.embed.images import image_features
from aape.pipeline.embed.shards import RowStore, row_key
from aape.pipeline.embed.texts import class_embeddings, encode_texts
from aape.pipeline.errors import UserError
from aape.pipeline.files import exclusive


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def write_pictures(folder: Path, count: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(path)
    return paths


def test_texts_keep_their_order_and_are_encoded_once() -> None:
    encoder = PixelEncoder()
    texts = ["ccc", "a", "bb", "a", "", "ccc"]
    rows = encode_texts(encoder, texts, batch_size=2)
    np.testing.assert_array_equal(rows, PixelEncoder().encode_text(texts))
    assert encoder.texts == ["", "a", "bb", "ccc"]
    encode_texts(encoder, [*texts, "new"])
    assert encoder.texts == ["", "a", "bb", "ccc", "new"]
    other = PixelEncoder("other")
    encode_texts(other, texts)
    assert len(other.texts) == 4
    np.testing.assert_array_equal(encode_texts(encoder, texts, cache=False), rows)
    assert encode_texts(encoder, []).shape == (0, 8)


def test_finished_batches_survive_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = PixelEncoder()
    whole = encoder.encode_text

    def fails(texts: Sequence[str]) -> np.ndarray:
        if "ccc" in texts:
            raise KeyboardInterrupt
        return whole(texts)

    monkeypatch.setattr(encoder, "encode_text", fails)
    with pytest.raises(KeyboardInterrupt):
        encode_texts(encoder, ["a", "bb", "ccc"], batch_size=1)
    again = PixelEncoder()
    encode_texts(again, ["a", "bb", "ccc"], batch_size=1)
    assert again.texts == ["ccc"]


def test_class_embeddings_are_the_renormalised_mean() -> None:
    names, templates = ["cat {x}", "dog"], ["a {}.", "the {}"]
    rows = class_embeddings(PixelEncoder(), names, templates)
    raw = PixelEncoder().encode_text(["a cat {x}.", "the cat {x}", "a dog.", "the dog"])
    means = raw.reshape(2, 2, 8).mean(1)
    np.testing.assert_allclose(
        rows, means / np.linalg.norm(means, axis=1, keepdims=True), rtol=1e-6
    )
    with pytest.raises(UserError, match="no place for the class name"):
        class_embeddings(PixelEncoder(), names, ["a photo"])


def test_one_new_image_costs_one_image(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "pictures", 5)
    encoder = PixelEncoder()
    first = image_features(encoder, paths[:4], workers=0)
    assert (first.reused, first.computed, encoder.images) == (0, 4, 4)
    moved = tmp_path / "moved.png"
    moved.write_bytes(paths[0].read_bytes())
    second = image_features(encoder, [paths[4], moved, *paths[1:4], moved], workers=0)
    assert (second.reused, second.computed, encoder.images) == (5, 1, 5)
    np.testing.assert_array_equal(second.x[1], first.x[0])
    np.testing.assert_array_equal(second.x[2:5], first.x[1:])


def test_a_changed_file_is_encoded_again(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "pictures", 2)
    before = image_features(PixelEncoder(), paths, workers=0)
    stat = paths[0].stat()
    Image.new("RGB", (12, 10), "red").save(paths[0])
    os.utime(paths[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = image_features(PixelEncoder(), paths, workers=0)
    assert (after.reused, after.computed) == (1, 1)
    assert not np.array_equal(before.x[0], after.x[0])
    assert image_features(PixelEncoder("other"), paths, workers=0).computed == 2


def test_views_depend_on_file_seed_and_number_alone(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "pictures", 6)
    two = image_features(PixelEncoder(), paths, views=2, seed=1, workers=0)
    assert two.views is not None
    torch.manual_seed(99)
    encoder = PixelEncoder()
    three = image_features(encoder, paths[::-1], views=3, seed=1, workers=0)
    assert three.views is not None
    assert encoder.images == 6  # the third view of each
    np.testing.assert_array_equal(three.views[::-1, :2], two.views)
    assert not np.allclose(three.views[:, 0], three.views[:, 2])
    other = image_features(PixelEncoder(), paths, views=2, seed=2, workers=0)
    assert other.views is not None
    assert not np.allclose(other.views, two.views)
    np.testing.assert_array_equal(other.x, two.x)


def test_worker_processes_give_the_same_bytes(tmp_path: Path, own_cache: Path) -> None:
    paths = write_pictures(tmp_path / "pictures", 20)
    options = {"views": 2, "tokens": True, "batch_size": 6}
    one = image_features(PixelEncoder(), paths, workers=0, **options)
    own_cache.rename(tmp_path / "elsewhere")
    two = image_features(PixelEncoder(), paths, workers=2, **options)
    assert two.computed == 20
    for name in ("x", "views", "tokens"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert one.tokens is not None
    assert one.tokens.shape == (20, 4, 3)
    assert one.tokens.dtype == np.float16


def test_reading_threads_keep_the_order(tmp_path: Path, own_cache: Path) -> None:
    """Without views, on a CPU, threads read the images."""
    paths = write_pictures(tmp_path / "pictures", 20)
    one = image_features(PixelEncoder(), paths, workers=0, batch_size=6, tokens=True)
    own_cache.rename(tmp_path / "elsewhere")
    two = image_features(PixelEncoder(), paths, workers=2, batch_size=6, tokens=True)
    assert two.computed == 20
    np.testing.assert_array_equal(one.x, two.x)
    np.testing.assert_array_equal(one.tokens, two.tokens)
    broken = tmp_path / "pictures" / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.jpg cannot be read"):
        image_features(PixelEncoder(), [*paths, broken], workers=2, batch_size=6, seed=1)


def test_tokens_asked_for_later_are_added(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "pictures", 3)
    image_features(PixelEncoder(), paths, views=1, workers=0)
    late = image_features(PixelEncoder(), paths, views=1, tokens=True, workers=0)
    whole = torch.stack([PixelEncoder().transform(Image.open(path)) for path in paths])
    assert late.tokens is not None
    np.testing.assert_array_equal(late.tokens, PixelEncoder().image_tokens(whole).half().numpy())


def test_unreadable_image_is_named_and_the_rest_kept(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "pictures", 4)
    paths[3].write_bytes(b"\x89PNG no picture")
    with pytest.raises(UserError, match=r"3\.png cannot be read"):
        image_features(PixelEncoder(), paths, workers=0, batch_size=1)
    encoder = PixelEncoder()
    assert image_features(encoder, paths[:3], workers=0).reused == 3
    with pytest.raises(UserError, match=r"absent\.png"):
        image_features(encoder, [tmp_path / "absent.png"])
    with pytest.raises(UserError, match="no images"):
        image_features(encoder, [])


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_stay_with_their_photos_where_some_cannot_be_read(
    workers: int, tmp_path: Path
) -> None:
    paths = write_pictures(tmp_path / "pictures", 12)
    whole = image_features(PixelEncoder(), paths, views=2, tokens=True, workers=0)
    paths[0].write_bytes(b"")
    paths[5].write_bytes(b"no picture")
    paths[11].unlink()
    copy = tmp_path / "pictures" / "copy.png"
    copy.write_bytes(b"no picture")
    asked = [paths[5], *paths, copy]
    for _ in range(2):  # what cannot be read is no part of the cache
        options = {"views": 2, "tokens": True, "batch_size": 3, "workers": workers}
        found = image_features(PixelEncoder(), asked, strict=False, **options)
        good = [n for n in range(12) if n not in (0, 5, 11)]
        assert found.paths == [paths[n] for n in good]
        assert found.kept.tolist() == [n + 1 for n in good]
        for name in ("x", "views", "tokens"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[good])
        assert [(entry.path, entry.absent) for entry in found.unreadable] == [
            (paths[5], False), (paths[0], False), (paths[5], False), (paths[11], True),
            (copy, False),
        ]  # fmt: skip
    with pytest.raises(UserError, match=r"5\.png cannot be read: no picture.*; 5 of 14"):
        image_features(PixelEncoder(), asked, workers=workers)
    nothing = image_features(PixelEncoder(), [copy], views=2, strict=False)
    assert nothing.x.shape == (0, 8)
    assert len(nothing.kept) == 0


def test_a_turned_photo_has_the_feature_of_the_upright_one(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 20, 3), np.uint8))
    picture.save(tmp_path / "1.png")
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
    for orientation, turn in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.transpose(turn).save(tmp_path / f"{orientation}.png", exif=exif)
    paths = [tmp_path / f"{n}.png" for n in (1, 3, 6)]
    x = image_features(PixelEncoder(), paths, workers=0).x
    np.testing.assert_array_equal(x[0], x[1])
    np.testing.assert_array_equal(x[0], x[2])


def as_of_the_first_versions(shard: Path) -> None:
    """Write a shard as it was before all finished work had one checksum."""
    with safe_open(shard, framework="np") as opened:
        parts = {name: opened.get_tensor(name) for name in ("keys", "rows")}
    save_file(parts, shard, metadata={"crc32": f"{zlib.crc32(parts['rows'].data):08x}"})


@pytest.mark.parametrize("old", [False, True], ids=["", "old"])
@pytest.mark.parametrize("damage", ["cut", "flip", "key", "text", "shape"])
def test_damaged_shards_are_computed_again(
    damage: str, old: bool, tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_pictures(tmp_path / "pictures", 4)
    before = image_features(PixelEncoder(), paths, workers=0)
    (shard,) = own_cache.glob("features/*/rows/*.safetensors")
    if old:
        as_of_the_first_versions(shard)
    content = bytearray(shard.read_bytes())
    if damage == "cut":
        content = content[:-20]
    elif damage in ("flip", "key"):  # the keys lie behind the rows
        content[{"flip": -100, "key": -20}[damage]] ^= 1
    elif damage == "text":
        content = bytearray(b"no safetensors file at all")
    else:
        save_file({"keys": np.zeros((4, 16), np.uint8), "rows": np.zeros((4, 3))}, shard)
        content = shard.read_bytes()
    shard.write_bytes(content)
    after = image_features(PixelEncoder(), paths, workers=0)
    np.testing.assert_array_equal(before.x, after.x)
    unnoticed = old and damage == "key"  # that key is not found any more, and nothing else is wrong
    assert after.computed == (1 if unnoticed else 4)
    assert ("damaged" in capsys.readouterr().err) != unnoticed


def test_shards_of_the_first_versions_are_reused(tmp_path: Path, own_cache: Path) -> None:
    paths = write_pictures(tmp_path / "pictures", 4)
    before = image_features(PixelEncoder(), paths, workers=0)
    (shard,) = own_cache.glob("features/*/rows/*.safetensors")
    as_of_the_first_versions(shard)
    after = image_features(PixelEncoder(), paths, workers=0)
    assert (after.reused, after.computed) == (4, 0)
    np.testing.assert_array_equal(before.x, after.x)


def test_what_is_said_while_a_store_is_filled_comes_through_as_it_is(tmp_path: Path) -> None:
    """Such as that another process of the group is gone, which is not the one that fills it."""
    store = RowStore(tmp_path / "store", (2,), np.float32)
    gone = "Another process of the group cannot be reached: closed"
    with pytest.raises(UserError, match=gone), store.writing():
        raise UserError(gone)
    with store.writing():
        store.add([row_key("row")], np.zeros((1, 2), np.float32))


def test_a_store_that_another_fills_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (RowStore(tmp_path / "store", (2,), np.float32) for _ in range(2))
    other = exclusive(tmp_path / "store" / "store", "filling")
    other.__enter__()

    def release(said: str) -> None:
        assert said == "Waiting for another process that fills store …"
        theirs.add([row_key("row")], np.ones((1, 2), np.float32))
        other.__exit__(None, None, None)

    monkeypatch.setattr(shards, "step", release)
    with ours.writing():
        assert row_key("row") in ours, "what the other wrote is seen"


def test_many_small_shards_are_joined(tmp_path: Path) -> None:
    store = RowStore(tmp_path / "store", (2,), np.float32)
    keys = [row_key("row", number) for number in range(130)]
    for number, key in enumerate(keys):
        store.add([key], np.full((1, 2), number, np.float32))
    with store.writing():
        store.merge()
    assert len(list((tmp_path / "store").glob("*.safetensors"))) == 1
    again = RowStore(tmp_path / "store", (2,), np.float32)
    np.testing.assert_array_equal(again.gather(keys)[:, 0], np.arange(130))


def test_large_shards_are_left_alone_however_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_MANY_SHARDS", 3)
    monkeypatch.setattr(shards, "_SMALL_SHARD", 2)
    store = RowStore(tmp_path / "store", (2,), np.float32)
    keys = [row_key("row", number) for number in range(14)]
    for start in range(0, 12, 2):
        store.add(keys[start : start + 2], np.full((2, 2), start, np.float32))
    before = {path.name for path in store.folder.glob("*.safetensors")}
    for found, key in enumerate(keys[12:], 1):
        store.add([key], np.full((1, 2), 12, np.float32))
        with store.writing():
            store.merge()
        now = {path.name for path in store.folder.glob("*.safetensors")}
        assert now > before
        assert len(now - before) == found, "a few small ones stay, too"
    store.add([row_key("one more")], np.full((1, 2), 14, np.float32))
    with store.writing():
        store.merge()
    assert len({path.name for path in store.folder.glob("*.safetensors")} - before) == 2
    assert len(store) == 15


# A process that forks one that works, so that torch is imported once and not for every kill.
WORK = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import aape.pipeline.embed.texts as encode, aape.pipeline.embed.images as features
from fakes import PixelEncoder
encode._SECONDS_AT_RISK = features._SECONDS_AT_RISK = 0.0
paths = sorted(Path({pictures!r}).glob("*.png"))

def work():
    child = os.fork()
    if child:
        return child
    encoder = PixelEncoder(seconds=0.02)
    encode.encode_texts(encoder, [f"text {{n}}" for n in range(24)], batch_size=2)
    options = dict(views=1, tokens=True, workers=0, batch_size=2)
    features.image_features(encoder, paths, **options)
    os._exit(0)
"""
KILL_OFTEN = """
random.seed(0)
for kills in range(100):
    child = work()
    time.sleep(random.uniform(0, 0.2 * 1.25**kills))  # slow disks finish too
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] == 0:
        break
print(kills)
"""
WORK_TWICE = """
both = [work(), work()]
print(sum(os.waitpid(child, 0)[1] for child in both))
"""


def run_work(folder: Path, then: str) -> int:
    write_pictures(folder / "pictures", 16)
    script = WORK.format(tests=str(TESTS), pictures=str(folder / "pictures")) + then
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=True
    )
    return int(done.stdout)


@pytest.mark.slow
def test_kill_at_any_moment_loses_no_finished_work(tmp_path: Path, own_cache: Path) -> None:
    """SIGKILL at random moments, again and again, then compare with an uninterrupted run."""
    assert 1 <= run_work(tmp_path, KILL_OFTEN) < 99
    paths = sorted((tmp_path / "pictures").glob("*.png"))
    texts = [f"text {number}" for number in range(24)]
    options = {"views": 1, "tokens": True, "workers": 0, "batch_size": 2}
    encoder = PixelEncoder()
    rows = encode_texts(encoder, texts, batch_size=2)
    resumed = image_features(encoder, paths, **options)
    assert (encoder.texts, encoder.images, resumed.computed) == ([], 0, 0)
    own_cache.rename(tmp_path / "killed")
    np.testing.assert_array_equal(rows, encode_texts(PixelEncoder(), texts, batch_size=2))
    whole = image_features(PixelEncoder(), paths, **options)
    for name in ("x", "views", "tokens"):
        assert getattr(resumed, name).tobytes() == getattr(whole, name).tobytes()


def test_two_processes_share_one_cache(tmp_path: Path, own_cache: Path) -> None:
    assert run_work(tmp_path, WORK_TWICE) == 0
    stored = 0
    for shard in own_cache.glob("features/*/rows/*.safetensors"):
        with safe_open(shard, framework="np") as opened:
            stored += len(opened.get_tensor("keys"))
    assert stored == 32  # 16 pictures and one view of each, each stored once


def test_texts_that_are_cut_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("aape.pipeline.embed.texts.step", said.append)
    encoder = PixelEncoder()
    encoder.context_length = 12
    encode_texts(encoder, ["a b", "a " * 10, "a " * 11, "word " * 40])
    assert said == [
        f"2 of 4 texts are longer than the 12 tokens that {encoder.id} reads: "
        "their ends are not seen."
    ]
    encode_texts(encoder, ["a b", "b c"])
    assert len(said) == 1

"""Training on data sets in which some photos cannot be read: rows and labels stay together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import PixelEncoder
from PIL import Image

from aape.adapter.captions.data import caption_set
from aape.adapter.captions.rows import image_inputs
from aape.adapter.classification.bank_source import BankSource
from aape.adapter.classification.photo_pool import read_pool
from aape.pipeline.datasets.records import CaptionedImage, Item
from aape.pipeline.embed.images import image_features
from aape.pipeline.errors import UserError


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))


def photos(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{n}.png" for n in range(count)]
    for n, path in enumerate(paths):
        pixels = np.random.default_rng(n).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def bank_source(strict: bool) -> BankSource:
    source = BankSource.__new__(BankSource)
    source.images = SimpleNamespace(class_names=["a", "b"])  # type: ignore[assignment]
    source.encoder, source.dataset = PixelEncoder(), "mine"  # type: ignore[assignment]
    source.views, source.repeat, source.strict, source.before = 0, False, strict, None
    source.workers, source.batch_size = 0, 8
    return source


def test_shots_are_drawn_of_the_photos_that_can_be_read(tmp_path: Path) -> None:
    paths = photos(tmp_path / "photos", 20)
    train = [Item(path, n % 2) for n, path in enumerate(paths[:14])]
    val = [Item(path, n % 2) for n, path in enumerate(paths[14:])]
    for n in (0, 1, 4, 7, 15):
        paths[n].write_bytes(b"no picture" if n else b"")
    for seed in (1, 2, 3):
        x, held, note = bank_source(strict=False)._sample(train, val, 4, seed)
        assert np.bincount(x.y).tolist() == [4, 4], "a broken photo costs no shot"
        for rows in (x, held):
            assert not {paths[n] for n in (0, 1, 4, 7, 15)} & set(rows.paths)
            label_of = {item.path: item.label for item in (*train, *val)}
            assert rows.y.tolist() == [label_of[path] for path in rows.paths]
            alone = image_features(PixelEncoder(), list(rows.paths), workers=0)
            np.testing.assert_array_equal(rows.x, alone.x)
        again = bank_source(strict=False)._sample(train, val, 4, seed)
        assert again[0].paths == x.paths
        assert "cannot be read and are left out" in note
    with pytest.raises(UserError, match="cannot be read"):
        bank_source(strict=True)._sample(train, val, 7, 1)


def test_an_absent_photo_is_no_broken_one(tmp_path: Path) -> None:
    paths = photos(tmp_path / "photos", 8)
    train = [Item(path, n % 2) for n, path in enumerate(paths)]
    paths[3].unlink()
    with pytest.raises(UserError, match=r"1 of 8 photos are not there, the first: .*3\.png"):
        bank_source(strict=False)._sample(train, [], 4, 1)


def test_captions_stay_with_their_photos(tmp_path: Path) -> None:
    paths = photos(tmp_path / "photos", 5)
    images = [CaptionedImage(str(n), path, (f"photo {n}",)) for n, path in enumerate(paths)]
    whole = image_features(PixelEncoder(), paths, tokens=True, workers=0)
    paths[1].write_bytes(b"")
    found = caption_set(PixelEncoder(), images, "training")
    assert [image.image_id for image in found.images] == ["0", "2", "3", "4"]
    np.testing.assert_array_equal(found.x, whole.x[[0, 2, 3, 4]])
    assert found.flat()[2] == ["photo 0", "photo 2", "photo 3", "photo 4"]
    _, x, kept = image_inputs(PixelEncoder(), paths, 1, "test", False)
    assert kept == [0, 2, 3, 4]
    np.testing.assert_array_equal(x, whole.x[[0, 2, 3, 4]])
    for strict in (caption_set, image_inputs):
        with pytest.raises(UserError, match=r"1\.png cannot be read: the file is empty"):
            if strict is caption_set:
                caption_set(PixelEncoder(), images, "training", True)
            else:
                image_inputs(PixelEncoder(), paths, 1, "test", True)


def test_a_pool_without_labels_leaves_out_what_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = photos(tmp_path / "pool", 3)
    paths[1].write_bytes(b"no picture")
    source = bank_source(strict=False)
    pool = read_pool(str(tmp_path / "pool"), source, source.encoder)
    whole = image_features(PixelEncoder(), [paths[0], paths[2]], workers=0)
    np.testing.assert_array_equal(pool.numpy(), whole.x)
    assert "1 of 3 photos without labels cannot be read" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"1\.png cannot be read"):
        read_pool(str(tmp_path / "pool"), bank_source(strict=True), source.encoder)
    for path in paths:
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match="No photo of"):
        read_pool(str(tmp_path / "pool"), source, source.encoder)

"""One command for somebody's own photos: added once, described, all trained on, and told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fake_engine import FakeEngine
from fakes import PixelEncoder
from PIL import Image

from aape.adapter.classification.own_photos import describe
from aape.adapter.classification.verbs import train
from aape.pipeline.datasets.own import find_or_add
from aape.pipeline.errors import UserError
from aape.pipeline.prompts import generate

COLOURS = {"red_mug": (200, 30, 30), "green plate": (30, 200, 30), "blue-bowl": (30, 30, 200)}


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A home of its own, an encoder of pixels, and an engine that writes at once."""
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    encoder, real = PixelEncoder(), generate.generate_banks

    def banks(manifests: Any, outs: Any, config: Any, **options: Any) -> list[Path]:
        options |= {"engine": FakeEngine(), "encoder": encoder}
        return real(manifests, outs, config, **options)

    monkeypatch.setattr(generate, "generate_banks", banks)
    monkeypatch.setattr("aape.pipeline.encoders.load_encoder", lambda *a, **o: encoder)
    return


def photos(folder: Path, counts: dict[str, int]) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            noise = rng.integers(-25, 25, (24, 24, 3))
            pixels = np.clip(np.array(COLOURS.get(name, (90, 90, 90))) + noise, 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_a_folder_becomes_a_run_that_says_what_was_done(tmp_path: Path) -> None:
    folder = photos(tmp_path / "my things", dict.fromkeys(COLOURS, 8))
    (folder / "red_mug" / "torn.jpg").write_bytes(b"no photo")
    results = train(folder, baselines=["zero-shot", "gda"], settings={"evaluation.resamples": 0})
    said = "\n".join(results.details["summary"])
    assert "24 photos of 3 classes" in said
    assert "torn.jpg" in said
    # 0.7, 0 and 0.3 of eight: two a class are held out, six are trained on
    assert "Trained on 18 photos; 6 others of 3 classes" in said
    assert results.protocol == "fewshot/1"
    assert results.details["shots"] == "all"
    ours, zero_shot = results.methods[0], results.method("zero-shot template")
    assert f"{ours.mean('accuracy'):.1f} % right: this adapter" in said
    assert f"{zero_shot.mean('accuracy'):.1f} % right: zero-shot" in said
    assert "best of 1 other methods, GDA" in said
    assert "points of doubt" in said
    run = results.details["run"]
    assert said.endswith(f"Next: aape predict {run} PHOTO")
    assert (Path(run) / "report.html").exists()
    assert yaml.safe_load((Path(run) / "config.yaml").read_text())["evaluation"]["shots"] == "all"


def test_a_second_run_reuses_names_and_descriptions(tmp_path: Path) -> None:
    folder = photos(tmp_path / "things", dict.fromkeys(COLOURS, 4))
    first = find_or_add(folder)
    bank, said = describe(first, "", "", {})
    assert said.startswith("A language model wrote")
    file = tmp_path / "home" / "datasets" / "things.yaml"
    file.write_text(file.read_text().replace("name: red mug", "name: crimson mug"))
    again = find_or_add(folder)
    assert again.name == first.name == "things"
    assert "since an earlier run" in again.said[0]
    assert "crimson mug" in again.dataset.class_names
    assert not describe(again, "", "", {})[1].startswith("The descriptions are those")  # renamed
    assert describe(again, "", "", {}) == (
        bank, f"The descriptions are those of an earlier run ({bank})."
    )  # fmt: skip
    photos(folder, {"grey jug": 4})
    third = find_or_add(folder)
    assert {"crimson mug", "grey jug"} <= set(third.dataset.class_names)
    assert "1 new: grey jug" in " ".join(third.said)
    broken = folder / "grey jug" / "broken.jpg"
    broken.touch()
    fourth = find_or_add(folder)
    assert f"Left out: 1 that cannot be read: {broken}: the file is empty." in fourth.said
    assert fourth.said[0].startswith(third.said[0])  # it is not counted


def test_folders_of_one_name_are_two_data_sets(tmp_path: Path) -> None:
    one = find_or_add(photos(tmp_path / "a" / "things", dict.fromkeys(COLOURS, 2)))
    two = find_or_add(photos(tmp_path / "b" / "things", dict.fromkeys(COLOURS, 2)))
    assert (one.name, two.name) == ("things", "things-2")
    assert find_or_add(photos(tmp_path / "cars", dict.fromkeys(COLOURS, 2))).name == "cars-2"


def test_classes_of_different_sizes_train_with_every_baseline(tmp_path: Path) -> None:
    folder = photos(tmp_path / "uneven", {"red_mug": 12, "green plate": 5, "blue-bowl": 1})
    results = train(folder, settings={"evaluation.resamples": 0})
    assert results.details["images_a_class"] == pytest.approx((8 + 3 + 1) / 3)
    for method in results.methods:
        assert np.isfinite(method.mean("accuracy")), method.name
        assert np.isfinite(method.details["ece"]).all(), method.name
    assert not any("is left out" in note for note in results.notes if "waffle" not in note)
    assert results.methods[0].details["reliability"]["before"]["ece"][0] >= 0


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"red_mug": 3}, "one class only"),
        ({"red_mug": 1, "green plate": 1}, "left to test"),
    ],
)
def test_what_cannot_be_trained_is_said_before_any_description(
    tmp_path: Path, counts: dict[str, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "generate_banks", None)
    with pytest.raises(UserError, match=message):
        train(photos(tmp_path / "few", counts))
    assert not (tmp_path / "runs").exists()


def test_sixteen_shots_of_small_classes_name_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shots all"):
        train(photos(tmp_path / "few", dict.fromkeys(COLOURS, 4)), shots=16)


def test_a_name_that_is_nothing_says_so() -> None:
    with pytest.raises(UserError, match="no folder or table"):
        train("photos/nowhere")
    with pytest.raises(UserError, match="data set"):
        train("nosuchset")


@pytest.mark.slow
def test_eight_photos_a_class_from_cold(aape, test_data: Path, tmp_path: Path) -> None:
    """The real encoder and the real language model, two classes of real photos."""
    for name in ("hat", "shoes"):
        (tmp_path / "wear" / name).mkdir(parents=True)
        some = sorted((test_data / "photos" / "clothing" / "train" / name).iterdir())[:8]
        for photo in some:
            (tmp_path / "wear" / name / photo.name).write_bytes(photo.read_bytes())
    env = {**os.environ, "AAPE_HOME": str(tmp_path / "home")}
    options = ["--baselines", "fast", "--set", "generation.samples=1",
               "--set", "generation.top_up.min_kept=0"]  # fmt: skip
    done = aape("train", "wear", *options, cwd=tmp_path, env=env, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "16 photos of 2 classes" in done.stdout
    assert "Next: aape predict" in done.stdout
    run = done.stdout.rstrip().rpartition("aape predict ")[2].removesuffix(" PHOTO")
    photo = tmp_path / "wear" / "hat"
    done = aape("predict", run, photo, "--sort-into", "sorted", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    copies = [path for path in (tmp_path / "sorted").rglob("*") if path.is_file()]
    assert len(copies) == 8
    assert len(list(photo.iterdir())) == 8

"""Labels for new photos, through real processes and the real ``lite`` encoder."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aape.adapter.predict import Prediction, predict
from aape.adapter.prediction_file import to_csv
from aape.pipeline.datasets import open_dataset
from aape.pipeline.errors import UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A run of base-to-new on shapes; its bank holds random words, so no language model is run."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("predict")
    env = {**os.environ, "AAPE_HOME": str(folder / "home")}

    def run(*words: str) -> None:
        command = [sys.executable, "-m", "aape.cli", *words]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run(
        "generate-prompts", "--dataset", "shapes", "--control", "waffle", "--encoder", "lite",
        "--samples", "1", "--out", "shapes.bank.parquet",
    )  # fmt: skip
    run(
        "train", "--bank", "shapes.bank.parquet", "--shots", "4", "--seeds", "0",
        "--baselines", "none", "--out", "run",
    )  # fmt: skip
    return folder, env


def test_photos_get_labels(aape, trained: tuple[Path, dict[str, str]]) -> None:
    folder, env = trained
    about = json.loads((folder / "run" / "adapter_config.json").read_text())
    dataset = open_dataset("shapes")
    items = dataset.items("test")[:60]
    paths = [item.path for item in items]
    done = aape("predict", "run", *paths, "--json", "--top", "2", cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [Path(row["path"]) for row in rows] == paths
    for row in rows:
        first, second = row["labels"]
        assert 0 <= second["p"] <= first["p"] <= 1
        assert first["label"] in about["all_class_names"]
    truth = [dataset.class_names[item.label] for item in items]
    hits = sum(row["labels"][0]["label"] == name for row, name in zip(rows, truth))
    assert hits > 3 * len(items) / len(dataset.class_names), "far above chance"


def test_explanations_and_labels_agree_on_trained_classes(
    aape, trained: tuple[Path, dict[str, str]]
) -> None:
    folder, env = trained
    about = json.loads((folder / "run" / "adapter_config.json").read_text())
    path = open_dataset("shapes").items("test")[7].path
    words = [word for name in about["class_names"] for word in ("--class", name)]
    done = aape("predict", "run", path, *words, "--top", "99", "--json", cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    predicted = {row["label"]: row["p"] for row in json.loads(done.stdout)[0]["labels"]}
    done = aape("explain", "run", path, "--top", "99", "--json", cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for answer in found["classes"]:
        assert sum(answer["terms"].values()) == pytest.approx(answer["logit"], abs=1e-3)
    # within trained classes the shift between groups is the same for all
    logits = {c["name"]: c["logit"] for c in found["classes"] if c["seen"]}
    total = sum(math.exp(value) for value in logits.values())
    assert len(predicted) == len(logits) == len(about["class_names"])
    for name, p in predicted.items():
        assert p == pytest.approx(math.exp(logits[name]) / total, abs=2e-3)


def test_classes_can_be_chosen_and_added(aape, trained: tuple[Path, dict[str, str]]) -> None:
    folder, env = trained
    path = open_dataset("shapes").items("test")[0].path
    done = aape(
        "predict", "run", path, "--class", "red circle", "--also", "wooden chair",
        "--out", "labels.csv", "--top", "9", cwd=folder, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader((folder / "labels.csv").open())
    assert {row["label_1"], row["label_2"]} == {"red circle", "wooden chair"}
    assert float(row["p_1"]) + float(row["p_2"]) == pytest.approx(1, abs=1e-3)


def test_a_photo_that_cannot_be_read_is_a_row(aape, trained: tuple[Path, dict[str, str]]) -> None:
    folder, env = trained
    inbox = folder / "inbox"
    inbox.mkdir(exist_ok=True)
    good = open_dataset("shapes").items("test")[0].path
    for name in ("a.png", "c.png"):
        (inbox / name).write_bytes(good.read_bytes())
    (inbox / "b.png").write_bytes(b"")
    (inbox / "d.mov").write_bytes(b"x")
    done = aape("predict", "run", "inbox", "--out", "out.csv", "--json", cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    assert "1 file is left out: a format that is not read (d.mov)" in done.stderr
    rows = list(csv.DictReader((folder / "out.csv").open()))
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b.png", "c.png"]
    assert [row["error"] for row in rows] == ["", "the file is empty", ""]
    assert rows[0]["label_1"] == rows[2]["label_1"]
    assert rows[1]["label_1"] == ""
    assert [row["error"] for row in json.loads(done.stdout)] == [None, "the file is empty", None]
    stops = aape("predict", "run", "inbox", "--strict", cwd=folder, env=env)
    assert stops.returncode == 2
    assert "b.png cannot be read: the file is empty" in stops.stderr


def test_open_pictures_arrays_and_patterns(
    trained: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, env = trained
    monkeypatch.setenv("AAPE_HOME", env["AAPE_HOME"])
    paths = [item.path for item in open_dataset("shapes").items("test")[:2]]
    pattern = folder / "matched"
    pattern.mkdir(exist_ok=True)
    (pattern / "0.png").write_bytes(paths[0].read_bytes())
    (pattern / "0.txt").write_text("no picture")
    opened = Image.open(paths[1])
    rows = predict(
        folder / "run",
        [np.asarray(opened.convert("RGB")), f"{pattern}/*", opened, np.zeros((3, 2, 2)), paths[1]],
    )
    assert [row.path for row in rows] == [None, pattern / "0.png", None, None, paths[1]]
    for row in (rows[0], rows[2]):
        assert row.labels == rows[4].labels
        np.testing.assert_allclose(row.probabilities, rows[4].probabilities, atol=1e-3)
    assert rows[3].error.startswith("an array is (h, w)")
    with pytest.raises(UserError, match="No image matches"):
        predict(folder / "run", [f"{pattern}/*.jpg"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nowhere.jpg"], "There is no image or folder nowhere.jpg"),
        (["run", "empty"], "There are no images in empty"),
        (["nowhere", "empty"], "is not a run folder"),
        (["run/config.yaml", "empty"], "is a file, not a run folder. Name a folder instead."),
    ],
)
def test_bad_input(aape, trained: tuple[Path, dict[str, str]], words: list[str], said: str) -> None:
    folder, env = trained
    (folder / "empty").mkdir(exist_ok=True)
    done = aape("predict", *words, cwd=folder, env=env)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_names_with_commas_and_quotes_stay_data() -> None:
    row = Prediction(Path("a,b.jpg"), ['a "large" dog, wet', "猫"], [0.75, 0.25])
    assert to_csv([row]).splitlines()[1] == '"a,b.jpg","a ""large"" dog, wet",0.75,猫,0.25,'

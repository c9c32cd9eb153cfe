"""Classes that arrive later: extending a run is training on everything at once."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_world import world

from aape.adapter.classification import incremental
from aape.adapter.classification.feature_file import FileSource
from aape.adapter.classification.incremental import evaluate_incremental, sessions_of
from aape.adapter.config import EvaluationConfig
from aape.adapter.extend import extend
from aape.adapter.method.adapter import FittedAdapter
from aape.adapter.method.class_statistics import ClassStatistics
from aape.adapter.method.problem import ClassSet
from aape.adapter.method.recipe import DEFAULT
from aape.pipeline.errors import UserError

CLASSES = 24


def write(path: Path, first: int, last: int, encoder: str = "toy") -> Path:
    """Write the classes from ``first`` to ``last`` as a file of features."""
    x, y, t = world([8] * CLASSES)
    test_x, test_y, _ = world([20] * CLASSES, seed=1)
    use, test_use = (y >= first) & (y < last), (test_y >= first) & (test_y < last)
    tensors = {
        "train.features": x[use], "train.labels": y[use] - first,
        "test.features": test_x[test_use], "test.labels": test_y[test_use] - first,
        "class_text.features": t[first:last].contiguous(),
    }  # fmt: skip
    names = json.dumps([f"thing {i}" for i in range(first, last)])
    save_file(tensors, path, metadata={"classnames": names, "encoder": encoder, "dataset": "toy"})
    return path


@pytest.fixture
def base(tmp_path: Path, aape) -> Path:
    """A run over the first 16 classes."""
    file = write(tmp_path / "base.safetensors", 0, 16)
    done = aape(
        "train", "--features", file, "--protocol", "fewshot", "--shots", "8", "--seeds", "1",
        "--baselines", "none", "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


def test_statistics_add_up() -> None:
    x, y, _ = world([5, 7, 9, 4])
    whole = ClassStatistics.of(x, y, 4)
    cut = torch.arange(len(y)) % 3 == 0
    parts = [ClassStatistics.of(x[rows], y[rows], 4) for rows in (cut, ~cut)]
    added = parts[0].with_photos(parts[1])
    low, high = y < 2, y >= 2
    joined = ClassStatistics.of(x[low], y[low], 2).with_classes(
        ClassStatistics.of(x[high], y[high] - 2, 2)
    )
    for found in (added, joined):
        assert torch.allclose(found.count, whole.count)
        assert torch.allclose(found.mean, whole.mean, atol=1e-9)
        assert torch.allclose(found.scatter, whole.scatter, atol=1e-9)


def test_extending_is_training_on_everything(base: Path, tmp_path: Path) -> None:
    more = write(tmp_path / "more.safetensors", 16, CLASSES)
    before = (base / "adapter.safetensors").read_bytes()
    found = extend(base, features=more, shots=8, out=tmp_path / "grown")
    assert (base / "adapter.safetensors").read_bytes() == before, "the old run stays"
    assert found.added == [f"thing {i}" for i in range(16, CLASSES)]
    tensors = load_file(tmp_path / "grown" / "adapter.safetensors")
    about = json.loads((tmp_path / "grown" / "adapter_config.json").read_text())
    x, y, t = world([8] * CLASSES)
    scratch = ClassStatistics.of(x, y, CLASSES)
    kept = ClassStatistics.load(tensors)
    assert kept is not None
    for name in ("count", "mean", "scatter"):
        assert torch.allclose(getattr(kept, name), getattr(scratch, name), atol=1e-5), name
    whole = scratch.discriminant(t)
    test_x, test_y, _ = world([20] * CLASSES, seed=1)
    classes = ClassSet(t, t, t, None, torch.arange(CLASSES))
    logits = FittedAdapter.load(tensors, about).logits(test_x, classes)
    weight, warm = about["gaussian"]["weight"], about["gaussian"]["temperature"]
    expected = warm * (about["scale"] * test_x @ t.T + weight * whole(test_x))
    assert torch.allclose(logits, expected, rtol=1e-5, atol=1e-3)
    plain = (test_x @ t.T).argmax(1) == test_y
    right = logits.argmax(1) == test_y
    new = test_y >= 16
    assert right[new].float().mean() > plain[new].float().mean()
    assert right[~new].float().mean() > plain[~new].float().mean()


def test_classes_without_photos_and_more_photos_of_known_ones(base: Path, tmp_path: Path) -> None:
    more = write(tmp_path / "more.safetensors", 12, 20)
    bare = extend(base, features=more, shots=0, out=tmp_path / "bare")
    assert (bare.photos, len(bare.classes)) == (0, 20)
    kept = ClassStatistics.load(load_file(tmp_path / "bare" / "adapter.safetensors"))
    assert kept is not None
    assert kept.count.tolist() == [8] * 16 + [0] * 4
    twice = extend(base, features=more, shots=8, out=tmp_path / "twice")
    assert twice.added == [f"thing {i}" for i in range(16, 20)]
    kept = ClassStatistics.load(load_file(tmp_path / "twice" / "adapter.safetensors"))
    assert kept is not None
    assert kept.count.tolist() == [8] * 12 + [16] * 4 + [8] * 4


@pytest.mark.parametrize("kind", ["encoder", "neither", "there", "statistics"])
def test_what_cannot_be_added(kind: str, base: Path, tmp_path: Path, aape) -> None:
    more = write(tmp_path / "m.safetensors", 16, 20, "other" if kind == "encoder" else "toy")
    words = ["extend", base, "--features", more, "--shots", "2", "--out", tmp_path / "grown"]
    said = "same encoder"
    if kind == "neither":
        words, said = ["extend", base], "one of them"
    if kind == "there":
        extend(base, features=more, shots=1, out=tmp_path / "grown")  # not what is asked for
        said = "has an adapter already"
    if kind == "statistics":
        from aape.adapter.run import RunFolder

        tensors, about = RunFolder(base).load_weights()
        tensors = {k: v for k, v in tensors.items() if not k.startswith("statistics")}
        RunFolder(base).save_weights(tensors, about)
        said = "Train it again"
    done = aape(*words)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_damaged_statistics_are_said() -> None:
    tensors = ClassStatistics.of(torch.eye(3), torch.arange(3), 3).tensors()
    tensors["statistics.scatter"] = torch.zeros(2, 2)
    with pytest.raises(UserError, match="damaged"):
        ClassStatistics.load(tensors)


def test_ten_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(perf_counter=count(5).__next__)  # each look is a second later
    monkeypatch.setattr(incremental, "time", clock)
    source = FileSource(write(tmp_path / "all.safetensors", 0, CLASSES))
    settings = EvaluationConfig(shots=4, seeds=[0, 1], baselines=["none"], protocol="incremental")
    results, tensors, about = evaluate_incremental(source, DEFAULT, settings)
    assert results.protocol == "incremental/1"
    ours, plain = results.method("ours"), results.method("zero-shot")
    assert (ours.seconds, plain.seconds) == (1.0, 1.0)
    assert ours.mean("average") > plain.mean("average")
    curve = [ours.mean(str(i + 1)) for i in range(10)]
    assert ours.mean("average") == pytest.approx(sum(curve) / 10)
    assert ours.mean("last") == curve[-1]
    point = ours.details["sessions"][0][-1]
    sizes = [len(part) for part in sessions_of(CLASSES)]
    share = sizes[-1] / CLASSES
    mixed = share * point["new"] + (1 - share) * point["old"]
    assert mixed == pytest.approx(point["all"], abs=1e-3), "as many test images a class"
    assert len(about["class_names"]) == CLASSES
    assert about["seed"] == 0, "what is kept is the first draw's"
    assert float(tensors["statistics.count"].sum()) == 4 * CLASSES
    assert not results.details["same_images"]


def test_sessions_of_all_photos_are_the_same_for_every_seed(tmp_path: Path) -> None:
    source = FileSource(write(tmp_path / "all.safetensors", 0, CLASSES))
    settings = EvaluationConfig(
        shots="all", seeds=[0, 1], baselines=["none"], protocol="incremental"
    )
    results, *_ = evaluate_incremental(source, DEFAULT, settings)
    assert results.details["same_images"]
    assert any("same training images" in note for note in results.notes)
    assert "±" not in results.cell(results.method("zero-shot"), "average")


def test_too_few_classes_for_ten_sessions() -> None:
    with pytest.raises(UserError, match="two classes"):
        sessions_of(19)

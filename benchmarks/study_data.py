"""Feature files for the distillation study, from the real test data. Run once:

    python benchmarks/study_data.py TEST_DATA OUT

Image features of Pets, Flowers and ImageNet are real CLIP ViT-B/32. Of the texts only the 1,000
ImageNet class vectors are real; every other text of these three goes through a kernel ridge from
the MiniLM sentence encoder to CLIP's text space, learned on those and 2,068 real vectors of
"a {name}". Clothing and birds are embedded by ``lite``, whose text side is its own.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from aape.adapter.classification.draws import waffle_templates
from aape.adapter.classification.feature_checks import read_features
from aape.pipeline.embed.images import image_features
from aape.pipeline.embed.texts import encode_texts
from aape.pipeline.encoders import load_encoder
from aape.pipeline.encoders.lite.towers import TextTower
from aape.pipeline.progress import step

TEMPLATES = {
    "pets": "a photo of a {}, a type of pet.",
    "flowers": "a photo of a {}, a type of flower.",
    "imagenet": "a photo of a {}.",
    "clothing": "a photo of a {}, a type of clothing.",
    "birds": "a photo of a {}, a type of bird.",
}
CLOTHING_NAMES = {"longsleeve": "long-sleeved shirt", "outwear": "outerwear"}


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)).astype(np.float32)


def plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


class TextMap:
    """Kernel ridge from sentence vectors to CLIP's text space, in offsets from each corpus's mean.

    The kernel is a Gaussian of the distance on the sphere; width and ridge are chosen by folds.
    """

    def __init__(self, data: Path) -> None:
        self.tower = TextTower(torch.device("cpu"))
        tensors, metadata = read_features(data / "clip_vitb32" / "imagenet_4shot.safetensors")
        self.names = json.loads(metadata["classnames"])
        self.real = unit(tensors["class_text.features"].astype(np.float32))
        corpora = [(self.names, self.real)]
        more, metadata = read_features(data / "clip_vitb32_text" / "vocabularies.safetensors")
        names = json.loads(metadata["names"])
        vocabulary = [name for key in sorted(names) for name in names[key]]
        vectors = np.concatenate([more[f"{key}.features"] for key in sorted(names)])
        corpora.append((vocabulary, unit(vectors.astype(np.float32))))
        # the two corpora were made with different templates: remove what is common to each
        self.mean = self.real.mean(0)
        x = np.concatenate([self.sentences([f"a photo of a {n}." for n in c]) for c, _ in corpora])
        y = np.concatenate([v - v.mean(0) for _, v in corpora])
        # the corpora share names: a name whose twin is learned from would be no held-out one
        _, group = np.unique([plain(n) for c, _ in corpora for n in c], return_inverse=True)
        fold = np.random.default_rng(0).integers(5, size=group.max() + 1)[group]
        best = (-1.0, 0.0, 0.0)
        for gamma in (0.3, 1.0, 3.0):
            for ridge in (0.01, 0.1, 0.3):
                out, held = fold != 0, fold == 0
                guess = self._kernel(x[held], x[out], gamma) @ self._solve(
                    x[out], y[out], gamma, ridge
                )
                score = float((unit(guess + self.mean) * unit(y[held] + self.mean)).sum(-1).mean())
                best = max(best, (score, gamma, ridge))
        self.score, self.gamma, ridge = best
        step(f"text map: cosine to real vectors of held-out names {self.score:.3f}")
        self.x, self.weight = x, self._solve(x, y, self.gamma, ridge)

    def sentences(self, texts: list[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = np.zeros((len(texts), 384), np.float32)
        for i in range(0, len(order), 128):
            rows = order[i : i + 128]
            out[rows] = self.tower([texts[j] for j in rows]).numpy()
        return out

    @staticmethod
    def _kernel(a: np.ndarray, b: np.ndarray, gamma: float) -> np.ndarray:
        return np.exp(gamma * (2 * a @ b.T - 2))

    def _solve(self, x: np.ndarray, y: np.ndarray, gamma: float, ridge: float) -> np.ndarray:
        kernel = self._kernel(x, x, gamma)
        return np.linalg.solve(kernel + ridge * np.eye(len(x), dtype=np.float32), y)

    def __call__(self, texts: list[str]) -> np.ndarray:
        guess = self._kernel(self.sentences(texts), self.x, self.gamma) @ self.weight
        return unit(guess + self.mean)


def padded(embed, prompts: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the prompts of each class (c, k, d) and their mask (c, k)."""
    flat = embed([text for texts in prompts for text in texts])
    widest = max(map(len, prompts))
    out = np.zeros((len(prompts), widest, flat.shape[1]), np.float32)
    mask = np.zeros((len(prompts), widest), np.uint8)
    start = 0
    for i, texts in enumerate(prompts):
        out[i, : len(texts)], mask[i, : len(texts)] = flat[start : start + len(texts)], 1
        start += len(texts)
    return out, mask


def text_tensors(
    embed, names: list[str], template: str, prompts: list[list[str]]
) -> dict[str, np.ndarray]:
    """Return the text tensors of a feature file."""
    p, mask = padded(embed, prompts)
    noise = waffle_templates(template, names)
    waffle = embed([t.format(n) for n in names for t in noise])
    return {
        "class_text.features": embed([template.format(name) for name in names]),
        "waffle_text.features": unit(waffle.reshape(len(names), len(noise), -1).mean(1)),
        "prompt_text.features": p,
        "prompt_text.mask": mask,
    }


def halves(x: np.ndarray, y: np.ndarray, share: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of a training pool and of a validation pool, split within classes."""
    generator = np.random.default_rng(0)
    train, val = [], []
    for label in np.unique(y):
        rows = generator.permutation(np.flatnonzero(y == label))
        cut = round(share * len(rows))
        train += rows[:cut].tolist()
        val += rows[cut:].tolist()
    return np.array(sorted(train)), np.array(sorted(val))


def clip_file(
    data: Path, out: Path, name: str, source: str, descriptions: str, text: TextMap
) -> None:
    """Write Pets or Flowers: real image features, approximate texts."""
    tensors, metadata = read_features(data / "clip_vitb32" / source)
    names = [name.replace("_", " ") for name in json.loads(metadata["classnames"])]
    raw = json.loads((data / "descriptions" / "cupl_style" / descriptions).read_text())
    known = {plain(key): value for key, value in raw.items()}
    texts = text_tensors(text, names, TEMPLATES[name], [known[plain(n)] for n in names])
    real = {plain(n): i for i, n in enumerate(text.names)}
    found = [(i, real[plain(n)]) for i, n in enumerate(names) if plain(n) in real]
    for i, j in found:
        texts["class_text.features"][i] = text.real[j]
    x = np.concatenate([tensors["train_16shot.features"], tensors["val.features"]])
    y = np.concatenate([tensors["train_16shot.labels"], tensors["val.labels"]])
    train, val = halves(x, y)
    note = (
        f"real CLIP image features; class texts: {len(found)} of {len(names)} real, the others and"
        f" all prompts through an approximate map (cosine {text.score:.2f} to real vectors)"
    )
    tensors = {
        "train.features": x[train], "train.labels": y[train],
        "val.features": x[val], "val.labels": y[val],
        "test.features": tensors["test.features"], "test.labels": tensors["test.labels"],
    }  # fmt: skip
    header = {"encoder": "OpenAI CLIP ViT-B/32", "classnames": json.dumps(names), "note": note,
              "dataset": name}  # fmt: skip
    save_file(tensors | texts, out / f"{name}.safetensors", metadata=header)


def imagenet_file(data: Path, out: Path, text: TextMap) -> None:
    """Write ImageNet: 4 images a class and real class texts; the study splits them by seed."""
    tensors, _ = read_features(data / "clip_vitb32" / "imagenet_4shot.safetensors")
    raw = json.loads((data / "descriptions" / "hpt_gpt" / "ImageNet.json").read_text())
    known = {plain(key): value for key, value in raw.items()}
    prompts = [known.get(plain(n), [TEMPLATES["imagenet"].format(n)]) for n in text.names]
    texts = text_tensors(text, text.names, TEMPLATES["imagenet"], prompts)
    texts["class_text.features"] = text.real
    lacking = sum(plain(n) not in known for n in text.names)
    note = (
        "real CLIP image features and real class texts; prompts (GPT, HPT) through an approximate"
        f" map (cosine {text.score:.2f} to real vectors); {lacking} classes have no description"
    )
    tensors = {"all.features": tensors["train_4shot.features"],
               "all.labels": tensors["train_4shot.labels"]}  # fmt: skip
    header = {"encoder": "OpenAI CLIP ViT-B/32", "classnames": json.dumps(text.names),
              "note": note, "dataset": "imagenet"}  # fmt: skip
    save_file(tensors | texts, out / "imagenet.safetensors", metadata=header)


def photo_file(
    folder: Path, out: Path, name: str, names: list[str], prompts: list[list[str]], note: str
) -> None:
    """Write a folder of photos embedded by ``lite``."""
    lite = load_encoder("lite")
    folders = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())

    def images(split: str) -> tuple[np.ndarray, np.ndarray]:
        paths, labels = [], []
        for label, entry in enumerate(folders):
            found = sorted((folder / split / entry).glob("*.jpg"))
            paths += found
            labels += [label] * len(found)
        return image_features(lite, paths, workers=0).x, np.array(labels)

    x, y = images("train")
    if (folder / "validation").is_dir():
        x_val, y_val = images("validation")
        x, y = np.concatenate([x, x_val]), np.concatenate([y, y_val])
    train, val = halves(x, y)
    x_test, y_test = images("test")
    texts = text_tensors(lambda t: encode_texts(lite, t), names, TEMPLATES[name], prompts)
    tensors = {
        "train.features": x[train], "train.labels": y[train],
        "val.features": x[val], "val.labels": y[val],
        "test.features": x_test, "test.labels": y_test,
    }  # fmt: skip
    header = {"encoder": "lite", "encoder_fingerprint": lite.fingerprint, "dataset": name,
              "classnames": json.dumps(names), "logit_scale": str(lite.logit_scale),
              "note": note}  # fmt: skip
    save_file(tensors | texts, out / f"{name}.safetensors", metadata=header)


def birds(data: Path, out: Path) -> None:
    folder = data / "photos" / "birds"
    names = [p.name.replace("_", " ") for p in sorted((folder / "train").iterdir())]
    path = data / "descriptions" / "cupl_style" / "bird_prompts_full.json"
    known = {plain(key): value for key, value in json.loads(path.read_text()).items()}
    prompts = [
        known.get(plain(n))
        or known.get(plain(n.replace(" ", "s ", 1)))
        or [TEMPLATES["birds"].format(n)]
        for n in names
    ]
    lacking = sum(len(p) == 1 for p in prompts)
    note = f"photos and texts embedded by lite; CuPL prompts, {lacking} classes have none"
    photo_file(folder, out, "birds", names, prompts, note)


def clothing(data: Path, out: Path, bank: Path) -> None:
    from aape.pipeline.bank import PromptBank

    folder = data / "photos" / "clothing"
    names = [CLOTHING_NAMES.get(p.name, p.name) for p in sorted((folder / "train").iterdir())]
    opened = PromptBank.open(bank)
    prompts = [opened.prompts(i) for i in range(len(names))]
    note = f"photos and texts embedded by lite; prompts of {bank.name}"
    photo_file(folder, out, "clothing", names, prompts, note)


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    text = TextMap(data)
    clip_file(data, out, "pets", "oxford_pets.safetensors", "pets_prompts_full.json", text)
    clip_file(data, out, "flowers", "oxford_flowers.safetensors", "flower_prompts_full.json", text)
    imagenet_file(data, out, text)
    birds(data, out)
    bank = out / "clothing.bank.parquet"
    if bank.exists():
        clothing(data, out, bank)
    else:
        step(f"clothing is left out: make {bank} with aape generate-prompts --dataset clothing")
    for path in sorted(out.glob("*.safetensors")):
        step(f"{path}: {len(load_file(path))} tensors")


if __name__ == "__main__":
    main()

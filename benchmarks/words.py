"""What better words add to the class texts: own queries, contrasts, other names, with controls.

    python benchmarks/words.py names TEST_DATA             # real CLIP; WordNet in $AAPE_WORDNET
    python benchmarks/words.py queries STUDY MPVR          # Pets; texts through the approximate map
    python benchmarks/words.py kinds PHOTOS BANK [BANK …]  # photos and banks, by ``lite``

``STUDY`` is the folder of benchmarks/study_data.py, $AAPE_TEST_DATA what it was made from, MPVR a
clone of jmiemirza/Meta-Prompting (Mirza et al. 2024), whose sentences answer queries that a
language model wrote. Nothing is trained: the class text is ``unit((1 − β)·template + β·mean)``, β
and names are chosen by cross-entropy on four training photos a class, five draws; accuracy on test
photos. Intervals: paired bootstrap over photos and draws, against the row that is named.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from study_data import TEMPLATES, TextMap, padded, plain, unit

from aape.adapter.classification.feature_file import read_features
from aape.adapter.method.class_names import OtherNames, choose_names
from aape.adapter.method.class_text import zero_shot_losses
from aape.adapter.method.problem import ClassSet, ClassText, other_classes
from aape.adapter.metrics.intervals import paired_bootstrap

SEEDS, SHOTS = range(5), 4
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
Right = np.ndarray  # (seeds, test photos): right and wrong


class Photos:
    """Training and test photos x (n, d) with labels y, and the template text (c, d)."""

    def __init__(self, train, test, text: np.ndarray, scale: float) -> None:
        self.train, self.test, self.scale = train, test, scale
        self.text = torch.from_numpy(text)

    def shots(self, seed: int, rest: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the shots of a draw, or the training photos that are left."""
        generator = np.random.default_rng(seed)
        x, y = self.train
        order = [generator.permutation(np.flatnonzero(y == c)) for c in range(len(self.text))]
        rows = np.concatenate([some[SHOTS:] if rest else some[:SHOTS] for some in order])
        return torch.from_numpy(x[rows]), torch.from_numpy(y[rows])

    def right(self, text: torch.Tensor) -> np.ndarray:
        x, y = self.test
        return (torch.from_numpy(x) @ text.T).argmax(1).numpy() == y

    def described(
        self, prompts: np.ndarray | None, mask: np.ndarray | None, shares=SHARES
    ) -> tuple[Right, str]:
        """Return what the class text with these prompts (c, k, d) gets right, and the β chosen."""
        rows, chosen = [], []
        for seed in SEEDS:
            text = self.text
            if prompts is not None and mask is not None:
                total = torch.from_numpy((prompts * mask[..., None]).sum(1))
                mean = torch.nn.functional.normalize(total, dim=-1)
                some = torch.from_numpy(mask.any(1))
                classes = ClassSet(text, text, torch.where(some[:, None], mean, text), None,
                                   torch.arange(len(text)), prompted=some)  # fmt: skip
                x, y = self.shots(seed)
                texts = {share: classes.text(ClassText("ensemble", share)) for share in shares}
                losses = {
                    share: float(zero_shot_losses(x, y, t, self.scale).mean())
                    for share, t in texts.items()
                }
                chosen.append(min(losses, key=lambda share: losses[share]))
                text = texts[chosen[-1]]
            rows.append(self.right(text))
        return np.stack(rows), ", ".join(f"{share:g}" for share in chosen)


def print_rows(rows: dict[str, tuple[Right, str]], against: str) -> None:
    """Print accuracy, what was chosen, and the interval against one of the rows."""
    print(f"\n| class text | accuracy | it − {against} | chosen by training photos |")
    print("|---|---|---|---|")
    for name, (right, chosen) in rows.items():
        low, high = paired_bootstrap([right], [rows[against][0]], lambda parts: parts[0])
        each = 100 * right.mean(1)
        interval = "" if name == against else f"{low:+.1f} to {high:+.1f}"
        print(f"| {name} | {each.mean():.2f} ± {each.std():.2f} | {interval} | {chosen} |")


def shuffled(prompts: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    source = other_classes(len(prompts), 0).numpy()
    return prompts[source], mask[source]


def queries(study: Path, mpvr: Path) -> None:
    """CuPL's sentences, to queries written by hand, and MPVR's, to queries that GPT wrote."""
    tensors, about = read_features(study / "pets.safetensors")
    names = json.loads(about["classnames"])
    file = json.loads((mpvr / "descriptions" / "gpt" / "OxfordPets.json").read_text())
    known = {plain(key): value for key, value in file.items()}
    cupl = tensors["prompt_text.features"].astype(np.float32), tensors["prompt_text.mask"] > 0
    count = cupl[0].shape[1]
    lists = [known[plain(name)] for name in names]
    generator = np.random.default_rng(0)
    picked = [[texts[i] for i in generator.permutation(len(texts))[:count]] for texts in lists]
    embed = TextMap(Path(os.environ["AAPE_TEST_DATA"]))
    own, mask = padded(embed, picked)
    own = own, mask > 0
    both = np.concatenate([cupl[0], own[0]], 1), np.concatenate([cupl[1], own[1]], 1)
    photos = Photos(
        (tensors["train.features"].astype(np.float32), tensors["train.labels"].astype(np.int64)),
        (tensors["test.features"].astype(np.float32), tensors["test.labels"].astype(np.int64)),
        unit(tensors["class_text.features"].astype(np.float32)), 100.0,
    )  # fmt: skip
    rows = {
        "template": photos.described(None, None),
        f"CuPL's queries, {count} a class": photos.described(*cupl),
        f"a model's own queries (MPVR), {count} a class": photos.described(*own),
        "both": photos.described(*both),
        "MPVR, shuffled": photos.described(*shuffled(*own)),
    }
    print("Pets: real CLIP photos, 16 of 37 class texts real, all sentences through the map.")
    print_rows(rows, "template")
    # the sentences beside templates of their own kind, half and half, nothing chosen
    photos.text = torch.from_numpy(embed([TEMPLATES["pets"].format(name) for name in names]))
    half = (0.5,)
    rows = {
        "template": photos.described(None, None),
        f"CuPL's queries, {count} a class": photos.described(*cupl, half),
        f"a model's own queries (MPVR), {count} a class": photos.described(*own, half),
        "both": photos.described(*both, half),
        "CuPL, shuffled": photos.described(*shuffled(*cupl), half),
        "MPVR, shuffled": photos.described(*shuffled(*own), half),
    }
    print("\nAll class texts through the map as well; half template, half sentences.")
    print_rows(rows, f"CuPL's queries, {count} a class")


def names(data: Path) -> None:
    """Other names of 253 ImageNet classes: WordNet's synonyms, of which photos choose."""
    tensors, about = read_features(data / "clip_vitb32" / "lvis_imagenet.safetensors")
    given = json.loads(about["classnames"])
    text = unit(tensors["text_ensemble.features"].astype(np.float32))
    found = synonyms(given, Path(os.environ["AAPE_WORDNET"]))
    more, vocabulary = read_features(data / "clip_vitb32_text" / "vocabularies.safetensors")
    listed = json.loads(vocabulary["names"])
    vectors = {
        name.casefold(): vector
        for key, of_key in listed.items()
        for name, vector in zip(of_key, unit(more[f"{key}.features"].astype(np.float32)))
    }
    pairs = [(c, name) for c, of_class in enumerate(found) for name in of_class]
    embed = TextMap(data)
    # real vectors of "a {name}" and the map differ from the ensemble by what names have in common:
    # only the step from the given name to the other one is taken from them
    own = embed([f"a photo of a {name}." for name in given])
    other = embed([f"a photo of a {name}." for _, name in pairs])
    step = np.stack([other[i] - own[c] for i, (c, _) in enumerate(pairs)])
    real = [i for i, (c, n) in enumerate(pairs) if n in vectors and given[c].casefold() in vectors]
    for i in real:
        step[i] = vectors[pairs[i][1]] - vectors[given[pairs[i][0]].casefold()]
    owner = np.array([c for c, _ in pairs])
    candidates = unit(text[owner] + step)
    photos = tensors["train_4shot.features"].astype(np.float32)
    labels = tensors["train_4shot.labels"].astype(np.int64)
    order = np.argsort(labels, kind="stable").reshape(-1, 4)
    stranger = np.roll(np.arange(len(given)), 1)[owner]  # names of another class
    prompts = unit(tensors["text_descriptions.features"].astype(np.float32))
    print(
        f"253 classes, {len(pairs)} other names of {len(set(owner.tolist()))} classes, {len(real)}"
        " by real vectors, the others by the map; each photo once the test photo."
    )
    which = np.arange(len(pairs))
    cases: dict[str, Callable[[torch.Tensor, torch.Tensor], list[int]]] = {
        "given names": lambda x, y: [-1] * len(text),
        "best names": by_photos(text, owner, candidates),
        "best names, those by real vectors": by_photos(text, owner, candidates, which[real]),
        "best names without doubt": by_photos(text, owner, candidates, doubt=0.0),
        "names of other classes offered": by_photos(text, stranger, candidates),
        "mean of all names": lambda x, y: [-2] * len(text),
    }
    mixes = {"templates": 0.0, "half templates, half descriptions": 0.5}
    tables: dict[str, dict[str, tuple[Right, str]]] = {title: {} for title in mixes}
    for name, choose in cases.items():
        right: dict[str, list[np.ndarray]] = {title: [] for title in mixes}
        moved = []
        for fold in range(4):
            train, test = np.delete(order, fold, 1).reshape(-1), order[:, fold]
            chosen = choose(torch.from_numpy(photos[train]), torch.from_numpy(labels[train]))
            moved.append(str(sum(i >= 0 for i in chosen)))
            new = text.copy()
            for c, i in enumerate(chosen):
                every = np.concatenate([text[c][None], candidates[owner == c]])
                new[c] = candidates[i] if i >= 0 else unit(every.mean(0)) if i == -2 else text[c]
            for title, mixed in mixes.items():
                both = unit((1 - mixed) * new + mixed * prompts)
                right[title].append((photos[test] @ both.T).argmax(1) == labels[test])
        for title, parts in right.items():
            tables[title][name] = (np.concatenate(parts)[None], ", ".join(moved))
    for title, rows in tables.items():
        print(f"\nClass text: {title}; right column: classes renamed in each fold")
        print_rows(rows, "given names")


def by_photos(
    text: np.ndarray,
    owner: np.ndarray,
    candidates: np.ndarray,
    rows: np.ndarray | None = None,
    doubt: float = 1.0,
) -> Callable[[torch.Tensor, torch.Tensor], list[int]]:
    """Return the choice among some of the candidates (m, d)."""
    kept = np.arange(len(owner)) if rows is None else rows
    others = OtherNames(torch.from_numpy(owner[kept]), torch.from_numpy(candidates[kept]))

    def choose(x: torch.Tensor, y: torch.Tensor) -> list[int]:
        found = choose_names(x, y, torch.from_numpy(text), others, 100.0, doubt)
        return [int(kept[i]) if i >= 0 else -1 for i in found]

    return choose


def synonyms(given: list[str], folder: Path) -> list[list[str]]:
    """Return the words that share a synset of WordNet's nouns with each name."""
    sets = []
    for line in (folder / "data.noun").read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            fields = line.split(" ")
            count = int(fields[3], 16)
            words = [word.replace("_", " ").casefold() for word in fields[4 : 4 + 2 * count : 2]]
            sets.append(words)
    every = {name.casefold() for name in given}
    found = []
    for name in given:
        words = {word for words in sets if name.casefold() in words for word in words}
        found.append(sorted(words - every))
    return found


def kinds(photos: Path, banks: list[Path]) -> None:
    """What each kind of prompt of some banks adds, on a folder of photos embedded by ``lite``."""
    from aape.pipeline.bank import PromptBank
    from aape.pipeline.bank.schema import CONTRAST_PREFIX
    from aape.pipeline.datasets import load_manifest
    from aape.pipeline.embed.images import image_features
    from aape.pipeline.embed.texts import class_embeddings
    from aape.pipeline.encoders import load_encoder

    lite = load_encoder("lite")
    opened = [PromptBank.open(path) for path in banks]
    manifest = load_manifest(opened[0].metadata.dataset)
    folders = [entry.folder or entry.name for entry in manifest.classes]

    def some(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        paths = [sorted((photos / split / f).glob("*.jpg"))[:count] for f in folders]
        x = image_features(lite, [path for of_class in paths for path in of_class]).x
        return x, np.repeat(np.arange(len(folders)), [len(of_class) for of_class in paths])

    text = class_embeddings(lite, manifest.class_names, [*manifest.templates, *manifest.ensemble])
    found = Photos(some("train", 12), some("test", 40), text, lite.logit_scale)
    parts: dict[str, list[dict]] = {}
    for bank in opened:
        for row in bank.table.to_pylist():
            own = row["query_id"].startswith("own-")
            contrast = row["query_id"].startswith(CONTRAST_PREFIX)
            kind = "own queries" if own else "contrasts" if contrast else "descriptions"
            if row["verdict"] == "kept":
                parts.setdefault(kind, []).append(row)
            elif contrast and row["verdict"] == "other class":
                parts.setdefault("contrasts that name another class", []).append(row)
    print(f"{manifest.name}, {len(found.test[1])} test photos, kept prompts:",
          {kind: len(rows) for kind, rows in parts.items()})  # fmt: skip
    plain_rows = parts["descriptions"]
    rows = {"templates": found.described(None, None),
            "descriptions": found.described(*stacked(plain_rows, len(folders)))}  # fmt: skip
    for kind, more in parts.items():
        if kind != "descriptions":
            rows[kind] = found.described(*stacked(more, len(folders)))
            both = stacked(plain_rows + more, len(folders))
            rows[f"descriptions and {kind}"] = found.described(*both)
            rows[f"{kind}, shuffled"] = found.described(*shuffled(*stacked(more, len(folders))))
    rows["descriptions, shuffled"] = found.described(*shuffled(*stacked(plain_rows, len(folders))))
    named = [(c, n) for bank in opened for c, of in enumerate(bank.other_names()) for n in of]
    if named:
        embedded = class_embeddings(lite, [n for _, n in named],
                                    [*manifest.templates, *manifest.ensemble])  # fmt: skip
        owner = np.array([c for c, _ in named])
        print_doubts(found, text, owner, embedded)
        choose = by_photos(text, owner, embedded)
        right, moved = [], []
        for seed in SEEDS:
            chosen = choose_with_scale(found, choose, seed)
            new = found.text.clone()
            for c, i in enumerate(chosen):
                if i >= 0:
                    new[c] = torch.from_numpy(embedded[i])
                    moved.append(f"{manifest.class_names[c]} → {named[i][1]}")
            right.append(found.right(new))
        rows["best names"] = (np.stack(right), ", ".join(dict.fromkeys(moved)))
    print_rows(rows, "templates")


def print_doubts(photos: Photos, text: np.ndarray, owner: np.ndarray, names: np.ndarray) -> None:
    """Print how surely a name must gain, by the training photos that did not choose it."""
    for doubt in (0.0, 1.0, 2.0, 3.0):
        choose, costs, moved = by_photos(text, owner, names, doubt=doubt), [], 0
        for seed in SEEDS:
            new = photos.text.clone()
            for c, i in enumerate(choose_with_scale(photos, choose, seed)):
                if i >= 0:
                    new[c], moved = torch.from_numpy(names[i]), moved + 1
            x, y = photos.shots(seed, rest=True)
            costs.append(float(zero_shot_losses(x, y, new, photos.scale).mean()))
        print(f"doubt {doubt:g}: {moved} renamed in {len(costs)} draws, cross-entropy of other"
              f" training photos {np.mean(costs):.4f}")  # fmt: skip
    x, y = photos.shots(0, rest=True)
    given = float(zero_shot_losses(x, y, photos.text, photos.scale).mean())
    print(f"given names, first draw: {given:.4f}")


def choose_with_scale(photos: Photos, choose, seed: int) -> list[int]:
    """Choose names with the photos' own factor: ``by_photos`` takes CLIP's 100."""
    x, y = photos.shots(seed)
    return choose(x * photos.scale / 100, y)


def stacked(rows: list[dict], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return prompts (c, k, d) and mask (c, k) of rows of a bank."""
    of_class = [[r["embedding"] for r in rows if r["class_id"] == c] for c in range(classes)]
    widest, width = max(map(len, of_class)), len(rows[0]["embedding"])
    out = np.zeros((classes, max(widest, 1), width), np.float32)
    mask = np.zeros(out.shape[:2], bool)
    for c, vectors in enumerate(of_class):
        out[c, : len(vectors)], mask[c, : len(vectors)] = np.array(vectors).reshape(-1, width), True
    return out, mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["names", "queries", "kinds"])
    parser.add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    if options.part == "names":
        names(options.folders[0])
    elif options.part == "queries":
        queries(*options.folders)
    else:
        kinds(options.folders[0], options.folders[1:])


if __name__ == "__main__":
    main()

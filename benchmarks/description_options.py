"""What else could descriptions do? Weighted sentences, and distillation as a prior of the map.

    python benchmarks/description_options.py TEST_DATA [--shots 2] [--seeds 0,1,2,3,4,5,6,7]

253 ImageNet classes, real CLIP photos and texts; base-to-new, other photos and halves every seed.
Of the ten sentences of a class the real mean is known. Their own vectors go through an approximate
map and are shifted so that their mean is the real one. Nothing is trained by gradient but the
attention; the class text is half ensemble, half descriptions.

sentences  mean; weights by how much nearer a sentence is to the photos of its class than to others
           (new classes: to its class text than to other texts); attention with one learned query
prior      zero-shot + λ·(x − x̄) B₀ (t − t̄), with B₀ the ridge from photos to what they are told to
           be: their descriptions, those of other classes, the template
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from class_texts import FourPhotos
from study_data import TextMap, plain
from torch import Tensor

from aape.adapter.classification.data import ClassificationData
from aape.adapter.classification.feature_checks import read_features
from aape.adapter.method.problem import other_classes
from aape.adapter.method.temperature import best_temperature, cross_entropies
from aape.adapter.metrics.accuracy import harmonic_mean

SCALE = 100.0
KAPPAS = (0.0, 10.0, 30.0, 100.0)  # 0 is the mean
LAMBDAS = (0.02, 0.05, 0.1, 0.25)


class Half:
    """Photos and texts of one half of the classes, labels from 0."""

    def __init__(self, data: ClassificationData, ids: list[int], sentences: Tensor) -> None:
        train, test = data.train.of(ids), data.test.of(ids)
        self.x, self.y = torch.from_numpy(train.x), torch.from_numpy(train.y)
        self.test_x, self.test_y = torch.from_numpy(test.x), torch.from_numpy(test.y)
        self.ensemble = torch.from_numpy(data.texts.ensemble[ids])
        self.described = torch.from_numpy(data.texts.described[ids])
        self.sentences = sentences[ids]

    def text(self, described: Tensor) -> Tensor:
        """Return class texts (c, d), half ensemble and half the given descriptions (c, d)."""
        return F.normalize(self.ensemble + F.normalize(described, dim=-1), dim=-1)

    def score(self, logits: Tensor) -> tuple[float, float]:
        """Return accuracy and cross-entropy at the best temperature, on test photos."""
        right = float((logits.argmax(1) == self.test_y).float().mean() * 100)
        logits = logits * best_temperature([(logits, self.test_y)])
        return right, float(cross_entropies(logits, self.test_y).mean())


def approximate_sentences(data: Path, real: Tensor) -> Tensor:
    """Return vectors (c, 10, d) of the sentences, shifted to the real means (c, d).

    LVIS has other names for many of the classes; the mean vector of a class says which one it is.
    """
    told = json.loads((data / "descriptions" / "LVIS_gpt3.json").read_text())
    known = {plain(name): texts for name, texts in told.items()}
    path = data / "clip_vitb32_text" / "lvis_descriptions.safetensors"
    tensors, metadata = read_features(path)
    means = torch.from_numpy(tensors["description_mean_text"].astype(np.float32))
    likeness, place = (real @ F.normalize(means, dim=-1).T).max(1)
    assert float(likeness.min()) > 0.999, "a class whose descriptions are not in LVIS"
    names = json.loads(metadata["names"])
    text = TextMap(data)
    found = [(known[plain(names[i])] * 10)[:10] for i in place.tolist()]
    vectors = torch.from_numpy(text([sentence for texts in found for sentence in texts]))
    vectors = vectors.reshape(len(real), 10, -1)
    return vectors - vectors.mean(1, keepdim=True) + real[:, None]


def by_contrast(half: Half, kappa: float, photos: bool) -> Tensor:
    """Return descriptions (c, d) weighted by how well each sentence tells its class apart."""
    if photos:
        c = len(half.ensemble)
        means = torch.zeros(c, half.x.shape[1]).index_add_(0, half.y, half.x)
        means = F.normalize(means, dim=-1)
    else:
        means = half.text(half.described)
    near = torch.einsum("ckd,ed->cke", half.sentences, means)  # (c, k, c)
    own = torch.einsum("ckc->ck", near)
    rivals = near.topk(6, dim=-1).values.mean(-1)
    weights = (kappa * (own - rivals)).softmax(1)
    return torch.einsum("ck,ckd->cd", weights, half.sentences)


def learned_query(half: Half, steps: int = 60) -> Callable[[Half], Tensor]:
    """Learn one query by cross-entropy on training photos; the same for all classes."""
    size = (half.sentences - half.sentences.mean(1, keepdim=True)).square().mean().sqrt()
    query = torch.zeros(half.x.shape[1], requires_grad=True)
    optimiser = torch.optim.Adam([query], lr=0.02)

    def attend(other: Half) -> Tensor:
        apart = other.sentences - other.sentences.mean(1, keepdim=True)
        weights = (apart @ query / size).softmax(1)
        return torch.einsum("ck,ckd->cd", weights, other.sentences)

    for _ in range(steps):
        optimiser.zero_grad()
        loss = F.cross_entropy(SCALE * half.x @ half.text(attend(half)).T, half.y)
        (loss + 1e-3 * query.square().sum()).backward()
        optimiser.step()
    return lambda other: attend(other).detach()


def distilled(
    x: Tensor, y: Tensor, target: Tensor, ridge: float = 10.0
) -> Callable[[Tensor], Tensor]:
    """Return x -> (x − x̄) B₀: the ridge from photos (n, d) to their classes' targets (c, d)."""
    mean = x.mean(0)
    z, wanted = x - mean, (target - target.mean(0))[y]
    gram = z.T @ z + ridge * z.square().sum() / len(z) * torch.eye(z.shape[1])
    matrix = torch.linalg.solve(gram, z.T @ wanted)
    return lambda x: (x - mean) @ matrix


def rows(base: Half, new: Half, seed: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the name of a row, and its logits of the test photos of base and new classes."""

    def zero_shot(half: Half, described: Tensor) -> Tensor:
        return SCALE * half.test_x @ half.text(described).T

    for kappa in KAPPAS:
        texts = by_contrast(base, kappa, True), by_contrast(new, kappa, False)
        yield f"sentences, contrast {kappa:g}", zero_shot(base, texts[0]), zero_shot(new, texts[1])
    attend = learned_query(base)
    yield "sentences, attention", zero_shot(base, attend(base)), zero_shot(new, attend(new))
    plain_base, plain_new = base.text(base.described), new.text(new.described)
    swapped = base.described[other_classes(len(base.described), seed)]
    for name, target in (
        ("descriptions", base.described), ("shuffled", swapped), ("template", base.ensemble),
    ):  # fmt: skip
        move = distilled(base.x, base.y, target)
        size = SCALE / move(base.x).norm(dim=-1).mean()
        for weight in LAMBDAS:
            logits = []
            for half, text in ((base, plain_base), (new, plain_new)):
                added = size * move(half.test_x) @ (text - plain_base.mean(0)).T
                logits.append(SCALE * half.test_x @ text.T + weight * added)
            yield f"prior of {name}, λ {weight:g}", logits[0], logits[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--shots", type=int, default=2)
    parser.add_argument("--seeds", default="0,1,2,3,4,5,6,7")
    options = parser.parse_args()
    path = options.data / "clip_vitb32" / "lvis_imagenet.safetensors"
    source = FourPhotos(path)
    tensors, _ = read_features(path)
    real = torch.from_numpy(tensors["text_descriptions.features"].astype(np.float32))
    sentences = approximate_sentences(options.data, real)
    found: dict[str, list[list[float]]] = {}
    for seed in map(int, options.seeds.split(",")):
        data = source.draw(options.shots, seed)
        base, new = (Half(data, ids, sentences) for ids in (data.base_ids, data.new_ids))
        for name, of_base, of_new in rows(base, new, seed):
            (b, b_loss), (n, n_loss) = base.score(of_base), new.score(of_new)
            values = [b, n, harmonic_mean(b, n), b_loss, n_loss]
            found.setdefault(name, []).append(values)
    reference = np.array(found["sentences, contrast 0"])
    print("| row | base | new | H | CE base | CE new | H against the mean, ± 2 errors |")
    print("|" + "---|" * 7)
    for name, values in found.items():
        table = np.array(values)
        gain = table[:, 2] - reference[:, 2]
        error = gain.std(ddof=1) / len(gain) ** 0.5
        cells = [f"{m:.2f}" for m in table[:, :3].mean(0)]
        cells += [f"{m:.3f}" for m in table[:, 3:].mean(0)]
        print(f"| {name} | {' | '.join(cells)} | {gain.mean():+.2f} ± {2 * error:.2f} |")


if __name__ == "__main__":
    main()

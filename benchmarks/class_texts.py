"""What do class texts bring, and is it what they say? Real CLIP on both sides, real descriptions.

    python benchmarks/class_texts.py TEST_DATA OUT [--seeds 0,1,2,3,4] [--baselines fast]

253 ImageNet classes, four photos each: three to train on, one to test on, other ones and other
halves of the classes every seed. Base-to-new, with the controls of language and the parts of the
recipe; paired bootstrap over photos and seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from aape.adapter.classification.data import ClassificationData, LabelledImages
from aape.adapter.classification.draws import no_images
from aape.adapter.classification.evaluate import evaluate_classification
from aape.adapter.classification.feature_file import FileSource
from aape.adapter.config import EvaluationConfig
from aape.adapter.method.recipe import load_recipe
from aape.adapter.run import RunFolder


class FourPhotos:
    """All photos of a file with ``train_4shot``: some to train on, the rest to test on."""

    def __init__(self, path: Path) -> None:
        self.file = FileSource(path)
        self.dataset = self.file.dataset

    def draw(self, shots: int, seed: int) -> ClassificationData:
        """Return the draw of a seed."""
        generator = np.random.default_rng(seed)
        images, c = self.file.split("train_4shot"), len(self.file.texts.names)
        order = np.concatenate(
            [generator.permutation(np.flatnonzero(images.y == label)) for label in range(c)]
        ).reshape(c, -1)
        train, test = order[:, :shots].reshape(-1), order[:, shots:].reshape(-1)
        ids = generator.permutation(c).tolist()
        return ClassificationData(
            dataset=self.dataset,
            encoder=self.file.metadata["encoder"],
            texts=self.file.texts,
            train=LabelledImages(images.x[train], images.y[train]),
            val=no_images(images.x.shape[1]),
            test=LabelledImages(images.x[test], images.y[test]),
            base_ids=sorted(ids[: (c + 1) // 2]),
            new_ids=sorted(ids[(c + 1) // 2 :]),
            shots=shots,
            seed=seed,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--protocol", default="base2new")
    parser.add_argument("--baselines", default="fast")
    parser.add_argument("--controls", default="shuffled,template,parts")
    parser.add_argument("--file", default="lvis_imagenet")
    options = parser.parse_args()
    source = FourPhotos(options.data / "clip_vitb32" / f"{options.file}.safetensors")
    settings = EvaluationConfig(
        protocol=options.protocol,
        shots=options.shots,
        seeds=[int(seed) for seed in options.seeds.split(",")],
        controls=[name for name in options.controls.split(",") if name],  # pyright: ignore
        baselines=options.baselines.split(","),
    )
    recipe = load_recipe(options.recipe)
    name = f"{options.file}-{options.protocol}-{options.shots}-{options.recipe}"
    run = RunFolder(options.out / name)
    results = evaluate_classification(source, recipe, settings, run=run)
    run.save_results(results)
    print(results.to_markdown())
    for pair, interval in results.intervals.items():
        print(f"- {pair}: {interval}")


if __name__ == "__main__":
    main()

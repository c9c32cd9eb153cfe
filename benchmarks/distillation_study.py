"""Does the distillation earn its place? Our recipes against controls, the paper, baselines.

    python benchmarks/study_data.py TEST_DATA FOLDER
    python benchmarks/distillation_study.py FOLDER [--data pets,flowers,…] [--seeds 0,1,2,3,4]

Base-to-new, 16 shots (birds 7; ImageNet 3, its fourth image is the test image). Seeds draw other
shots; for ``imagenet-halves`` they also draw other halves of the classes. Paired bootstrap over
images and seeds, 95 %. Finished (method, seed) pairs are kept below FOLDER/runs.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from aape.adapter.classification.data import ClassificationData, LabelledImages
from aape.adapter.classification.draws import Source, no_images
from aape.adapter.classification.evaluate import evaluate_classification
from aape.adapter.classification.feature_file import FileSource
from aape.adapter.config import EvaluationConfig
from aape.adapter.method.recipe import DEFAULT, STAGED, Control, Recipe
from aape.adapter.run import RunFolder

CONTROLS: list[Control] = [
    "no-distillation", "no-generator", "shuffled", "template", "waffle", "no-query",
]  # fmt: skip
STRONG = ["fast", "CLAP", "Tip-Adapter-F", "CLIP-Adapter", "GDA", "GDA, nearest images"]
# three of four images a class; some bird species have fewer than 16 training photos
SHOTS = {"imagenet": 3, "imagenet-halves": 3, "birds": 7}
DATA = ("pets", "flowers", "clothing", "birds", "imagenet", "imagenet-halves")


class ImageNet:
    """Four images a class: three to train on, one to test on, another one every seed."""

    def __init__(self, path: Path, random_halves: bool) -> None:
        self.file, self.random_halves = FileSource(path), random_halves
        self.dataset = "imagenet-halves" if random_halves else "imagenet"

    def draw(self, shots: int, seed: int) -> ClassificationData:
        """Return the draw of a seed."""
        generator = np.random.default_rng(seed)
        images, c = self.file.split("all"), len(self.file.texts.names)
        order = np.concatenate(
            [generator.permutation(np.flatnonzero(images.y == label)) for label in range(c)]
        ).reshape(c, -1)
        train, test = order[:, :-1].reshape(-1), order[:, -1]
        ids = generator.permutation(c).tolist() if self.random_halves else list(range(c))
        return ClassificationData(
            dataset=self.dataset,
            encoder=self.file.metadata["encoder"],
            texts=self.file.texts,
            train=LabelledImages(images.x[train], images.y[train]),
            val=no_images(images.x.shape[1]),
            test=LabelledImages(images.x[test], images.y[test]),
            base_ids=sorted(ids[: c // 2]),
            new_ids=sorted(ids[c // 2 :]),
            shots=shots,
            seed=seed,
            notes=self.file.notes,
        )


def generator_alone() -> Recipe:
    """The staged recipe without terms of seen classes: there nothing masks the distillation."""
    seen = STAGED.seen.model_copy(update={"residual": False, "discriminant": False})
    return STAGED.model_copy(update={"name": "generator alone", "seen": seen})


def study(folder: Path, name: str, seeds: list[int]) -> None:
    """Write both tables of one data set."""
    file = folder / f"{name.split('-')[0]}.safetensors"
    if not file.exists():
        print(f"{name}: {file} is not there, see benchmarks/study_data.py")
        return
    large = name.startswith("imagenet")
    source: Source = ImageNet(file, name.endswith("halves")) if large else FileSource(file)
    # other halves of the same classes ask whether the split matters, not what each part brings
    halves = name.endswith("halves")
    for recipe in (STAGED, DEFAULT) if halves else (generator_alone(), STAGED, DEFAULT):
        alone = recipe.name == "generator alone"
        # the largest problem gets the rows that answer the question, the others get all rows
        controls = CONTROLS if not large else CONTROLS[:4] if alone else CONTROLS[:1]
        baselines = ["fast"] if alone else STRONG if large else ["all", "literal"]
        settings = EvaluationConfig(
            shots=SHOTS.get(name, 16), seeds=seeds, controls=controls, baselines=baselines
        )
        run = RunFolder(folder / "runs" / name / recipe.name.replace(" ", "-"))
        results = evaluate_classification(source, recipe, settings, run=run)
        run.save_results(replace(results, title=f"{name}, {recipe.name}"))
        print(f"\n## {name}, {recipe.name}\n\n{results.to_markdown()}")
        for pair, interval in results.intervals.items():
            print(f"- {pair}: {json.dumps(interval)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    options = parser.parse_args()
    for name in options.data.split(","):
        study(options.folder, name, [int(seed) for seed in options.seeds.split(",")])


if __name__ == "__main__":
    main()

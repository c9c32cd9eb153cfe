"""Captions of ten test photos, and answers about ten, as tables for the documentation.

    python benchmarks/ten_photos.py RUN [--task captioning] [--dataset NAME] [--root FOLDER]
    python benchmarks/ten_photos.py RUN --task vqa

The photos are evenly spaced in the test split of the data set that the run was trained on, or of
another: none is picked by hand. RUN has prefixes, by ``aape eval captioning`` or ``aape eval vqa``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import aape
from aape.pipeline.datasets import open_dataset
from aape.pipeline.datasets.dataset import Dataset
from aape.pipeline.settings import read_source

One = TypeVar("One")


def main() -> None:
    """Print one table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--task", choices=["captioning", "vqa"], default="captioning")
    parser.add_argument("--dataset", default="")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--photos", type=int, default=10)
    asked = parser.parse_args()
    settings = read_source(asked.run / "config.yaml")
    own = settings.get("dataset") or settings.get("data", {}).get("dataset", "")
    dataset = open_dataset(asked.dataset or own, asked.root)
    table = captions if asked.task == "captioning" else answers
    print("\n".join(table(asked.run, dataset, asked.photos)))


def captions(run: Path, dataset: Dataset, count: int) -> list[str]:
    """Return a line a photo: the first caption of a person, and the model's."""
    photos = spaced(dataset.captions("test"), count)
    said = aape.caption(run, [photo.path for photo in photos])
    lines = ["| photo | a person | the model |", "|---|---|---|"]
    return lines + [
        f"| {cell(photo.image_id)} | {cell(photo.captions[0])} | {cell(one.text)} |"
        for photo, one in zip(photos, said, strict=True)
    ]


def answers(run: Path, dataset: Dataset, count: int) -> list[str]:
    """Return a line a photo: its first question, the answer of the data set, and the model's."""
    by_photo = {one.path: one for one in reversed(dataset.questions("test"))}
    asked = spaced(list(by_photo.values()), count)
    said: dict[Path, str] = {}
    for question in dict.fromkeys(one.question for one in asked):
        paths = [one.path for one in asked if one.question == question]
        said |= {found.path: found.text for found in aape.ask(run, paths, question)}
    lines = ["| question | answer | the model | |", "|---|---|---|---|"]
    for one in asked:
        right = said[one.path].strip().lower() in {text.lower() for text in one.answers}
        cells = (one.question, one.answers[0], said[one.path])
        lines.append(f"| {' | '.join(map(cell, cells))} | {'right' if right else 'wrong'} |")
    return lines


def spaced(items: Sequence[One], count: int) -> list[One]:
    """Return ``count`` items, evenly spaced from the first on."""
    return [items[i * len(items) // count] for i in range(min(count, len(items)))]


def cell(text: str) -> str:
    """Return a text as a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


if __name__ == "__main__":
    main()

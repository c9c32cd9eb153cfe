"""How much work a suite is, said before it starts: images, texts, answers, and about how long.

The rates are measured on a few of the suite's own photos and prompts with its encoder, on the
device on which it will run. What is in the cache already costs nothing and is counted all the same.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...pipeline.datasets import Dataset
from ...pipeline.errors import UserError
from ..shots import ALL

if TYPE_CHECKING:
    from ...pipeline.datasets import Split
    from ...pipeline.encoders.base import Encoder
    from .plan import Job, Suite

_PHOTOS = 32  # measured at most
_TEXTS = 64
_VALIDATION_SHOTS = 4  # at most, as CoOp


@dataclass(frozen=True)
class Rates:
    """What one image and one text cost on this device, in seconds."""

    image: float
    text: float


@dataclass(frozen=True)
class DatasetWork:
    """What a suite encodes of one data set, and how many answers it asks for.

    Attributes:
        images: by what they are for: "test images", "training images".
        texts: captions and prompts. answers: of the language model.
    """

    title: str
    images: dict[str, int]
    texts: int = 0
    answers: int = 0

    def seconds(self, rates: Rates) -> float:
        """Return about how long images and texts take."""
        return sum(self.images.values()) * rates.image + self.texts * rates.text

    def line(self, rates: Rates | None = None) -> str:
        """Return one line, with the time where the rates are known.

        >>> DatasetWork("ImageNet", {"test images": 50_000}).line(Rates(0.03, 0.01))
        'ImageNet: 50,000 test images, about 25 minutes on this device'
        """
        parts = [f"{n:,} {what}" for what, n in self.images.items() if n]
        parts += [f"{self.texts:,} texts"] if self.texts else []
        parts += [f"{self.answers:,} answers of the language model"] if self.answers else []
        if rates is not None:
            parts.append(f"about {spoken(self.seconds(rates))} on this device")
            if self.answers:
                parts[-1] += " without the answers"
        return f"{self.title}: {', '.join(parts)}"


def spoken(seconds: float) -> str:
    """Return a duration in words of the size that matters.

    >>> spoken(20), spoken(1500), spoken(9000)
    ('20 seconds', '25 minutes', '2.5 hours')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


@dataclass
class _Photos:
    """Images for one purpose: those that jobs name, or the most that one job draws."""

    paths: set[Path] = field(default_factory=set)
    drawn: int = 0  # jobs draw from the same photos: the largest of them counts

    def __len__(self) -> int:
        return max(len(self.paths), self.drawn)


@dataclass
class _Counts:
    """What was counted so far, by the name of the data set."""

    images: dict[str, dict[str, _Photos]] = field(default_factory=dict)
    texts: Counter[str] = field(default_factory=Counter)
    answers: dict[str, int] = field(default_factory=dict)

    def photos(self, name: str, what: str) -> _Photos:
        """Return the count of a data set's images for one purpose, which the caller adds to."""
        return self.images.setdefault(name, {}).setdefault(what, _Photos())


def suite_work(suite: Suite, jobs: Iterable[Job], opened: dict[str, Dataset]) -> list[DatasetWork]:
    """Count what jobs encode of each data set: at most, since what is cached is not done again."""
    counts = _Counts()
    for job in jobs:
        for task in job.tasks:
            if task == "classification":
                _count_classification(suite, job, opened, counts)
            else:
                _count_captions(suite, job, task == "vqa", opened, counts)
    for name, count in counts.answers.items():
        dataset = opened[name]
        templates = len(dataset.manifest.templates) + len(dataset.manifest.ensemble)
        counts.texts[name] += count + templates * len(dataset.class_names)
    return [
        DatasetWork(
            opened[name].manifest.title,
            {what: len(photos) for what, photos in counts.images.get(name, {}).items()},
            counts.texts[name],
            counts.answers.get(name, 0),
        )
        for name in dict.fromkeys([*counts.images, *counts.texts])
    ]


def _count_classification(
    suite: Suite, job: Job, opened: dict[str, Dataset], counts: _Counts
) -> None:
    generation, evaluation = suite.generation, job.evaluation
    for name in (job.dataset, *job.targets):
        dataset = opened[name]
        counts.photos(name, "test images").paths |= {item.path for item in dataset.items("test")}
        queries = len(dataset.manifest.queries)
        counts.answers[name] = len(dataset.class_names) * queries * generation.samples
    dataset = opened[job.dataset]
    classes = len(dataset.class_names)
    every = len(dataset.items("train"))
    views = 1 + (job.recipe or suite.recipe).views
    if evaluation.shots == ALL:
        train = every
    else:
        shots = evaluation.shots * classes * len(evaluation.seeds)
        train = min(every, shots)
        held = _held_out(dataset)
        some = min(evaluation.shots, _VALIDATION_SHOTS) * classes * len(evaluation.seeds)
        validation = counts.photos(job.dataset, "validation images")
        validation.drawn = max(validation.drawn, min(held, some))
    training = counts.photos(job.dataset, "training images and views")
    training.drawn = max(training.drawn, train * views)


def _held_out(dataset: Dataset) -> int:
    try:
        return len(dataset.items("val"))
    except UserError:
        return 0


def _count_captions(
    suite: Suite, job: Job, asks: bool, opened: dict[str, Dataset], counts: _Counts
) -> None:
    source = opened[job.source or job.dataset]
    train = source.captions("train")[: suite.captions.max_images or None]
    name = source.manifest.name
    captioned = counts.photos(name, "captioned training images")
    if not captioned.paths:
        captioned.paths |= {image.path for image in train}
        counts.texts[name] += sum(len(image.captions) for image in train)
    test = opened[job.dataset]
    entries = test.questions("test") if asks else test.captions("test")
    most = suite.test_questions if asks else suite.test_images
    counts.photos(job.dataset, "test images").paths |= {e.path for e in entries[: most or None]}


def measure(encoder: Encoder, photos: Sequence[Path], texts: Sequence[str]) -> Rates:
    """Time reading and encoding on a few photos and texts; nothing is kept.

    Photos that cannot be read are passed over: they are named when their turn comes.
    """
    import torch

    from ...pipeline.pictures import PictureError, read_picture

    def read(path: Path) -> torch.Tensor | None:
        try:
            return encoder.transform(read_picture(path).image)
        except PictureError:
            return None

    on_cpu = encoder.device.type == "cpu"
    some = list(photos[:_PHOTOS])
    with ThreadPoolExecutor(torch.get_num_threads() if on_cpu else 2) as pool:
        list(pool.map(read, some[:1]))
        start = time.perf_counter()
        pixels = [picture for picture in pool.map(read, some) if picture is not None]
        reading = (time.perf_counter() - start) / max(1, len(some))
    encoding = 0.0
    if pixels:
        batch = torch.stack(pixels).to(encoder.device)
        encoder.encode_images(batch[:1]).cpu()
        start = time.perf_counter()
        encoder.encode_images(batch).cpu()
        encoding = (time.perf_counter() - start) / len(pixels)
    written = list(texts[:_TEXTS])
    encoder.encode_text(written[:1])
    start = time.perf_counter()
    encoder.encode_text(written)
    text = (time.perf_counter() - start) / max(1, len(written))
    # on a CPU the same cores read and encode; beside a GPU, processes read ahead
    return Rates(reading + encoding if on_cpu else max(reading, encoding), text)


def measure_suite(suite: Suite, encoder: Encoder, opened: dict[str, Dataset]) -> Rates:
    """Measure on photos and class texts of the suite's own data sets, a few of each."""
    photos: list[Path] = []
    each = max(1, _PHOTOS // max(1, len(opened)))
    splits: tuple[Split, ...] = ("test", "train")
    for dataset in opened.values():
        contents = dataset.contents
        for split in splits:
            kinds = (contents.items, contents.captions, contents.questions)
            found = [entry.path for kind in kinds for entry in kind.get(split, [])[:each]]
            photos += found[:each]
            if found:
                break
    names = [name for dataset in opened.values() for name in dataset.class_names[:each]]
    return measure(encoder, photos, [f"a photo of a {name}." for name in names] or ["a photo."])


def say_work(
    suite: Suite, jobs: Sequence[Job], opened: dict[str, Dataset], encoder: Encoder
) -> list[str]:
    """Return what there is to do, a line a data set and one for all, with times."""
    work = suite_work(suite, jobs, opened)
    if not work:
        return []
    rates = measure_suite(suite, encoder, {name: opened[name] for name in _names(jobs)})
    whole = sum(item.seconds(rates) for item in work)
    lines = [item.line(rates) for item in work]
    answers = sum(item.answers for item in work)
    rest = f", and {answers:,} answers of the language model" if answers else ""
    return [*lines, f"Images and texts in all: about {spoken(whole)} on {encoder.device}{rest}"]


def _names(jobs: Iterable[Job]) -> list[str]:
    return list(dict.fromkeys(name for job in jobs for name in job.datasets))

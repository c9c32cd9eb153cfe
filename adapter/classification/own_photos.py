"""From a folder of photos to a run: what ``aape train photos/`` does before and says after."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.errors import UserError
from ...pipeline.files import cache_folder
from ...pipeline.progress import step
from ..metrics.intervals import half_width
from ..results import MethodResult, Results
from ..shots import ALL, Shots
from .draws import check_shots

if TYPE_CHECKING:
    from ...pipeline.datasets import Dataset
    from ...pipeline.datasets.own import OwnPhotos

# what is done where nothing else is asked for; seeds would all draw the same photos
DEFAULTS: dict[str, Any] = {"protocol": "fewshot", "shots": ALL, "seeds": [1]}
# a minute for ten classes on two processors; more are worth it where a GPU writes them
DESCRIPTIONS: dict[str, Any] = {"samples": 2}


@dataclass(frozen=True)
class Prepared:
    """Photos with a bank: ready to train on."""

    photos: OwnPhotos
    bank: Path
    described: str


def prepare(
    source: str | Path,
    root: str | Path = "",
    encoder: str = "",
    checkpoint: str | Path = "",
    shots: Shots = ALL,
    strict: bool = False,
    generation: Mapping[str, Any] | None = None,
) -> Prepared:
    """Add photos, unless they are known, and have their classes described, unless they are.

    Args:
        source: a folder, a table, or the name of a data set. root: folder of the latter.
        encoder, checkpoint: embed the descriptions. shots: what training will ask of each class.
        strict: stop at a photo that cannot be read. generation: settings of the descriptions.

    Raises:
        UserError: nothing to train on, too few photos, or no language model or encoder.
    """
    from ...pipeline.datasets.own import find_or_add

    step(f"1 of 3: looking through {source} …")
    photos = find_or_add(source, root or None, strict)
    for sentence in photos.said:
        step(sentence)
    check_splits(photos.dataset, shots)
    step("2 of 3: describing the classes …")
    bank, described = describe(photos, encoder, str(checkpoint), generation or {})
    step("3 of 3: training and testing …")
    return Prepared(photos, bank, described)


def of_prepared(
    prepared: Prepared, evaluation: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is asked for of prepared photos: their bank, and defaults for what is not said.

    Args:
        evaluation: :data:`DEFAULTS`, and what a configuration says instead. given: the options.
    """
    root = given["data.root"] or str(prepared.photos.dataset.root)
    own = {"data.bank": str(prepared.bank), "data.dataset": prepared.photos.name, "data.root": root}
    own |= {f"evaluation.{n}": given[f"evaluation.{n}"] or evaluation[n] for n in DEFAULTS}
    return {**given, **own}


def check_splits(dataset: Dataset, shots: Shots) -> None:
    """Stop before any description is made where training would stop after all of them.

    Raises:
        UserError: a class has too few photos to train on, or none of any class is left to test.
    """
    name, contents = dataset.manifest.name, dataset.contents.items
    labels = [item.label for item in contents.get("train", [])]
    check_shots(name, dataset.class_names, labels, shots)
    if not contents.get("test"):
        raise UserError(
            f"No photo of {name} is left to test on.",
            "Give classes two photos at least, or a folder named test with some.",
        )


def describe(
    photos: OwnPhotos, encoder: str, checkpoint: str, generation: Mapping[str, Any]
) -> tuple[Path, str]:
    """Return the bank of a data set, and a sentence: made with what the machine has, or reused."""
    from ...pipeline.prompts.verbs import generate_prompts

    bank = cache_folder("banks") / f"{photos.name}.bank.parquet"
    if not generation and _fits(bank, photos.dataset, encoder):
        return bank, f"The descriptions are those of an earlier run ({bank})."
    made = generate_prompts(
        photos.name,
        out=bank,
        encoder=encoder or "auto",
        checkpoint=checkpoint,
        settings=DESCRIPTIONS
        | {name.removeprefix("generation."): value for name, value in generation.items()},
    )[0]
    kept = made["verdicts"].get("kept", 0)
    classes = len(photos.dataset.class_names)
    return bank, (
        f"A language model wrote {made['prompts']:,} descriptions of the {classes} classes, of"
        f" which {kept:,} were kept ({bank})."
    )


def _fits(bank: Path, dataset: Dataset, encoder: str) -> bool:
    from ...pipeline.bank import PromptBank

    if not bank.exists():
        return False
    try:
        about = PromptBank.open(bank).metadata
    except UserError:  # damaged, or of a version that is no longer read: it is made again
        return False
    same = list(about.class_names) == dataset.class_names
    return same and encoder in ("", "auto", about.encoder_id)


def sentences(prepared: Prepared, results: Results, run: Path) -> list[str]:
    """Return what was done and how well it went, for people; the last line is what to type next."""
    said = [*prepared.photos.said, prepared.described]
    said += [f"{note[:1].upper()}{note[1:]}." for note in results.notes if "left out" in note]
    items = prepared.photos.dataset.contents.items
    count = {split: len(some) for split, some in items.items()}
    classes = len(prepared.photos.dataset.class_names)
    held = f", {count['val']:,} to choose settings" if count.get("val") else ""
    tested = sum(results.details["test_images"].values())
    trained = round(results.details["images_a_class"] * results.details["trained_classes"])
    said.append(
        f"Trained on {trained:,} photos{held}; {tested:,} others of {classes} classes were held"
        " out and tell how good it is:"
    )
    said += [f"  {line}" for line in _scores(results, tested)]
    said.append(f"The run is in {run}; open {run / 'report.html'} to see where it errs.")
    said.append(f"Next: aape predict {shlex.quote(str(run))} PHOTO")
    return said


def _scores(results: Results, tested: int) -> list[str]:
    metric = results.best
    what = "right" if metric == "accuracy" else metric
    ours = results.methods[0]
    rows: list[tuple[str, MethodResult]] = [("this adapter", ours)]
    baselines = [method for method in results.methods if method.group == "baseline"]
    rows += [("zero-shot, without any photo", m) for m in baselines if m.name == _ZERO_SHOT]
    others = [method for method in baselines if method.name != _ZERO_SHOT]
    if others:
        best = max(others, key=lambda method: method.mean(metric))
        rows.append((f"the best of {len(others)} other methods, {best.name}", best))
    lines = [f"{method.mean(metric):5.1f} % {what}: {name}" for name, method in rows]
    share = float(np.clip(ours.mean(metric) / 100, 0, 1))
    width = 100 * half_width(share, tested)
    if tested and width >= 1:
        lines.append(f"so few photos leave {width:.0f} points of doubt to either side")
    return lines


_ZERO_SHOT = "zero-shot template"


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of training, and those of the descriptions (``generation.samples``)."""
    own = {name: value for name, value in settings.items() if name.startswith("generation.")}
    return {name: value for name, value in settings.items() if name not in own}, own

"""Classes that arrive later: a run learns them without seeing its old photos again.

A run keeps counts, means and one scatter of its classes. They add up, so new classes and photos
join them in closed form, and the extended run is what training on all photos would have given.
c classes, d embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..pipeline.errors import UserError
from ..pipeline.files import exclusive
from ..pipeline.progress import step
from .config import Config
from .method.adapter import FittedAdapter
from .method.class_statistics import ClassStatistics
from .method.problem import ClassText
from .method.recipe import Recipe
from .method.terms import Gaussian, ZeroShot
from .run import RunFolder, own_weights

if TYPE_CHECKING:
    from .classification.data import ClassificationData
    from .classification.draws import Source


@dataclass(frozen=True)
class Extension:
    """What :func:`extend` did.

    Attributes:
        path: the new run. classes: all class names that it knows, old ones first.
        added: new names. photos: photos that joined.
    """

    path: Path
    classes: list[str]
    added: list[str]
    photos: int

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON shows."""
        return {
            "run": str(self.path),
            "classes": len(self.classes),
            "added": self.added,
            "photos": self.photos,
        }


def extend(
    run: str | Path,
    bank: str | Path = "",
    *,
    features: str | Path = "",
    shots: int = 16,
    seed: int = 1,
    root: str = "",
    out: str | Path = "",
    checkpoint: str = "",
) -> Extension:
    """Add the classes of another bank to a run, with photos or without.

    The old run stays as it is. The new one answers by zero-shot CLIP and Gaussian classes: those
    of the old photos, which it keeps as counts, means and a scatter, and those of the new ones. A
    class of the bank that the run knows already gets the new photos beside its old ones.

    Args:
        run: a run folder of classification.
        bank: a bank of new classes; their photos are found as ``aape train`` finds them.
        features: a file of cached features instead of a bank, for runs that were trained on one.
        shots: photos a class; 0 has the class texts alone.
        seed: of the shots. root: folder of the photos.
        out: the new run folder, by default the old name with ``-extended``.
        checkpoint: local weights of the encoder, where the run was made with such.

    Raises:
        UserError: the run keeps no statistics, the encoder differs, or there are no such photos.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"The seed {seed} is out of range.", "Give one from 0 to 4294967295.")
    folder = RunFolder.open(run)
    tensors, about = folder.load_classifier()
    FittedAdapter.load(tensors, about)  # refuses what is not of one adapter
    statistics = _statistics(folder, tensors)
    source, config = _open(folder, about, str(bank), str(features), root, checkpoint)
    data = source.draw(max(shots, 1), seed)
    if data.encoder != about["encoder"]:
        raise UserError(
            f"The run was trained on features of {about['encoder']}, the new classes come from"
            f" {data.encoder}.",
            "Embed both with the same encoder.",
        )
    known: list[str] = list(about["class_names"])
    names = list(data.texts.names)
    added = [name for name in dict.fromkeys(names) if name not in known]
    classes = known + added
    choice = ClassText(**(about.get("class_text") or {}))
    t = torch.cat([tensors["text"], _texts(data, choice)[[names.index(name) for name in added]]])
    grown = add_photos(statistics, data, classes, shots)
    weight = about.get("gaussian") or {}
    adapter = gaussian_adapter(
        grown, t, float(about["scale"]), choice,
        float(weight.get("weight", 0.1)), float(weight.get("temperature", 1.0)),
    )  # fmt: skip
    target = RunFolder(out or f"{folder.path}-extended")
    _save(target, adapter, grown, about | {"shots": shots}, classes, config)
    photos = len(data.train) if shots else 0
    step(f"Run folder: {target.path} ({len(added)} classes and {photos} photos more)")
    return Extension(target.path, classes, added, photos)


def add_photos(
    statistics: ClassStatistics, data: ClassificationData, classes: list[str], shots: int
) -> ClassStatistics:
    """Return statistics over ``classes``, those of ``statistics`` first, with a draw's photos."""
    c, d = len(classes), statistics.mean.shape[1]
    more = c - len(statistics)
    empty = ClassStatistics(
        statistics.count.new_zeros(more),
        statistics.mean.new_zeros(more, d),
        torch.zeros_like(statistics.scatter),
    )
    grown = statistics.with_classes(empty)
    if not shots:
        return grown
    place = torch.tensor([classes.index(name) for name in data.texts.names])
    y = place[torch.from_numpy(data.train.y)]
    return grown.with_photos(ClassStatistics.of(torch.from_numpy(data.train.x), y, c))


def gaussian_adapter(
    statistics: ClassStatistics,
    t: Tensor,
    scale: float,
    choice: ClassText,
    weight: float,
    temperature: float,
) -> FittedAdapter:
    """Return zero-shot CLIP and Gaussian classes with texts t (c, d), as one adapter."""
    table = {
        "zero-shot": (temperature, temperature),
        "gaussian": (temperature * weight, 0.0),
    }
    terms = [ZeroShot(scale), Gaussian(statistics.discriminant(t))]
    recipe = Recipe(name="extended", kind="convex")
    return FittedAdapter(recipe, t, list(terms), table, scale, choice)


def _statistics(folder: RunFolder, tensors: dict[str, Tensor]) -> ClassStatistics:
    found = ClassStatistics.load(tensors)
    if found is None or found.mean.shape != tensors["text"].shape:
        raise UserError(
            f"{folder.path} keeps no statistics of its classes, so nothing can be added to them.",
            "Train it again with this version.",
        )
    return found


def _open(
    folder: RunFolder, about: dict[str, Any], bank: str, features: str, root: str, checkpoint: str
) -> tuple[Source, Config]:
    """Open the new classes with the encoder of the run."""
    from .classification.sources import open_source

    if bool(bank) == bool(features):
        raise UserError(
            "Name the new classes by a bank or by a file of features, one of them.",
            "aape extend RUN --bank BANK",
        )
    values = Config.from_yaml(folder.path / "config.yaml").model_dump()
    place = values["encoder"]
    place["checkpoint"] = own_weights(place["name"], place["checkpoint"], checkpoint)
    values["data"] = {"bank": bank, "features": features, "root": root}
    config = Config.parse(values, "What was set")
    return open_source(config)[0], config


def _texts(data: ClassificationData, choice: ClassText) -> Tensor:
    ids = list(range(len(data.texts.names)))
    return data.class_set(ids, seen=ids).text(choice)


def _save(
    target: RunFolder, adapter: FittedAdapter, statistics: ClassStatistics, about: dict[str, Any],
    classes: list[str], config: Config,
) -> None:  # fmt: skip
    tensors = adapter.tensors() | statistics.tensors() | {"class_texts": adapter.text}
    kept = {name: about.get(name) for name in ("kind", "seed", "encoder", "bank", "template",
                                               "ensemble", "shots", "gaussian")}  # fmt: skip
    description = (
        adapter.config()
        | {name: value for name, value in kept.items() if value is not None}
        | {"dataset": about["dataset"], "protocol": about.get("protocol"), "extended": True}
        | {"class_names": classes, "all_class_names": classes}
    )
    with exclusive(target.path / "run", "extending into"):
        if _is_another(target, tensors):
            raise UserError(f"{target.path} has an adapter already.", "Choose another --out.")
        target.start(config)
        target.save_weights(tensors, description)


def _is_another(target: RunFolder, tensors: dict[str, Tensor]) -> bool:
    """Say whether a finished adapter lies there that is not this one.

    One without its description was left by a kill, and this one can be written over itself.
    """
    if not (target.path / "adapter.safetensors").exists():
        return False
    if not (target.path / "adapter_config.json").exists():
        return False
    there = target.load_weights()[0]
    return there.keys() != tensors.keys() or any(
        not torch.equal(value.cpu(), tensors[name].cpu()) for name, value in there.items()
    )

"""A run kept open: encoder and adapter are read once, then a photo costs its own time alone.

b photos, c classes, d embedding width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..pipeline.embed.texts import encode_texts
from ..pipeline.errors import UserError
from ..pipeline.one_or_many import one_or_many
from ..pipeline.pictures import PictureError, as_picture, read_picture
from .config import Config
from .method.adapter import FittedAdapter, total
from .method.problem import ClassSet
from .run import RunFolder, own_weights

if TYPE_CHECKING:
    from ..pipeline.encoders.base import Encoder
    from .predict import Prediction

_PHOTOS_AT_ONCE = 64
_NAMES_KEPT = 4096  # texts of classes that were asked for by name


@dataclass(frozen=True)
class AskedClasses:
    """The classes of a question: their names, and what the adapter is given of them."""

    names: tuple[str, ...]
    texts: ClassSet


@dataclass(frozen=True)
class Answer:
    """One class of the answer for a photo.

    ``terms`` add up to ``logit``. ``trained`` is false for a class that is judged by its name.
    """

    label: str
    p: float
    logit: float
    trained: bool
    terms: dict[str, float]


class OpenModel:
    """A run of classification, opened for as many photos as you like.

    Not safe for several threads at once: give it one (``aape serve`` does).

    Attributes:
        encoder: what sees the photos. fitted: the adapter. about: ``adapter_config.json``.
        names: classes of the run's data set; the position is the class id.
    """

    def __init__(
        self, folder: RunFolder, encoder: Encoder, tensors: dict[str, Tensor], about: dict[str, Any]
    ) -> None:
        if encoder.fingerprint != about["encoder"]:
            raise UserError(
                f"The run was trained on features of {about['encoder']}, not of"
                f" {encoder.fingerprint}."
            )
        self.folder, self.encoder, self.about = folder, encoder, about
        self.fitted = FittedAdapter.load(tensors, about)
        self.names = [str(name) for name in about["all_class_names"]]
        self._tensors = tensors
        self._trained = trained_positions(self.names, about["class_names"])
        self._named: OrderedDict[str, Tensor] = OrderedDict()
        self._own: AskedClasses | None = None

    @classmethod
    def open(
        cls,
        run: str | Path,
        *,
        encoder: Encoder | None = None,
        checkpoint: str = "",
        device: str = "",
    ) -> OpenModel:
        """Open a run; see :func:`open_model`."""
        folder = RunFolder.open(run)
        tensors, about = classification_weights(folder)
        if encoder is None:
            from ..pipeline.encoders import load_encoder

            wanted = Config.from_yaml(folder.path / "config.yaml").encoder
            name = about["encoder"].split("@")[0] if wanted.name == "auto" else wanted.name
            weights = own_weights(name, wanted.checkpoint, checkpoint)
            encoder = load_encoder(name, weights, device or wanted.device)
        return cls(folder, encoder, tensors, about)

    @one_or_many("classes", "also")
    def classes(
        self, classes: str | Sequence[str] = (), also: str | Sequence[str] = ()
    ) -> AskedClasses:
        """Return the classes of a question: the run's, or those named, and any others by name.

        Raises:
            UserError: a name is empty.
        """
        if not classes and not also:
            if self._own is None:
                self._own = self._asked(range(len(self.names)), ())
            return self._own
        ids: list[int] = list(range(len(self.names))) if not classes else []
        others: list[str] = []
        for name in dict.fromkeys([*classes, *also]):
            if not name.strip():
                raise UserError("The name of a class is empty.", "Write what it is called.")
            known = [i for i, own in enumerate(self.names) if own == name]
            if known:
                ids += [i for i in known if i not in ids]
            else:
                others.append(name)
        return self._asked(ids, others)

    def pixels(self, photo: Any) -> Tensor:
        """Return what the encoder wants of a photo, (3, h, w).

        Args:
            photo: a file, one of Pillow's pictures, or an array (h, w), (h, w, 3) or (h, w, 4).

        Raises:
            PictureError: it cannot be read; half a sentence says why.
        """
        is_file = isinstance(photo, str | Path)
        return self.encoder.transform(read_picture(photo).image if is_file else as_picture(photo))

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Tensor:
        """Encode photos (b, 3, h, w) to (b, d), float32, on the processor."""
        return self.encoder.encode_images(pixels.to(self.encoder.device)).float().cpu()

    @one_or_many("images", "classes", "also")
    def predict(
        self,
        images: Any | Sequence[Any],
        top: int = 3,
        classes: str | Sequence[str] = (),
        also: str | Sequence[str] = (),
        *,
        strict: bool = False,
        min_confidence: float = 0.0,
    ) -> list[Prediction]:
        """Label photos: what ``aape.predict`` returns, without opening anything again.

        Classes are named by their names, not by ids.

        Raises:
            UserError: with ``strict``, a photo cannot be read.
        """
        from .predict import NONE, Prediction

        asked = self.classes(classes, also)
        found: list[Prediction] = []
        for start in range(0, len(images), _PHOTOS_AT_ONCE):
            pixels: list[Tensor] = []
            errors: dict[int, str] = {}
            part = images[start : start + _PHOTOS_AT_ONCE]
            for place, image in enumerate(part):
                try:
                    pixels.append(self.pixels(image))
                except PictureError as error:
                    if strict:
                        raise UserError(f"The image {image} cannot be read: {error}.") from error
                    errors[place] = str(error)
            x = self.features(torch.stack(pixels)) if pixels else torch.zeros(0, 0)
            answers = iter(self.answers(x, asked, top, terms=False) if pixels else [])
            for place, image in enumerate(part):
                path = Path(image) if isinstance(image, str | Path) else None
                if place in errors:
                    found.append(Prediction(path, [], [], error=errors[place]))
                    continue
                best = next(answers)
                shares = [round(one.p, 4) for one in best]
                if best[0].p < min_confidence:
                    found.append(Prediction(path, [NONE], shares[:1]))
                else:
                    found.append(Prediction(path, [one.label for one in best], shares))
        return found

    @torch.no_grad()
    def answers(
        self, x: Tensor, asked: AskedClasses, top: int = 3, *, terms: bool = True
    ) -> list[list[Answer]]:
        """Return the ``top`` likeliest classes of photos by their features x (b, d), best first."""
        added = self.fitted.contributions(x, asked.texts)
        return _likeliest(total(added), asked, top, added if terms else {})

    @torch.no_grad()
    def zero_shot(self, x: Tensor, asked: AskedClasses, top: int = 3) -> list[list[Answer]]:
        """Return what the encoder says by the class texts alone, without the adapter."""
        return _likeliest(self.fitted.scale * x @ asked.texts.template.T, asked, top)

    def _asked(self, ids: Sequence[int], others: Sequence[str]) -> AskedClasses:
        """Return classes of the run by id, then others by name."""
        names = [*(self.names[i] for i in ids), *others]
        kept = self._tensors.get("class_texts")
        rows = [kept[i] for i in ids] if kept is not None else []
        by_name = self._by_name(names[len(rows) :])
        text = torch.stack([*rows, *by_name])
        seen = torch.tensor([*(self._trained[i] for i in ids), *[-1] * len(others)])
        return AskedClasses(tuple(names), ClassSet(text, text, text, None, seen, tuple(names)))

    def _by_name(self, names: Sequence[str]) -> list[Tensor]:
        """Return the text (d,) of each name; kept in memory only, for names may be a stranger's."""
        ensemble = (self.about.get("class_text") or {}).get("base") == "ensemble"
        templates = self.about["ensemble"] if ensemble else [self.about["template"]]
        lacking = [name for name in dict.fromkeys(names) if name not in self._named]
        found: dict[str, Tensor] = {
            name: self._named[name] for name in names if name in self._named
        }
        if lacking:
            texts = [template.replace("{}", name) for name in lacking for template in templates]
            rows = torch.from_numpy(encode_texts(self.encoder, texts, cache=False))
            means = F.normalize(rows.reshape(len(lacking), len(templates), -1).mean(1), dim=-1)
            found |= dict(zip(lacking, means))
        for name in names:
            self._named[name] = found[name]
            self._named.move_to_end(name)
        while len(self._named) > _NAMES_KEPT:
            self._named.popitem(last=False)
        return [found[name] for name in names]


def _likeliest(
    logits: Tensor, asked: AskedClasses, top: int, added: Mapping[str, Tensor] | None = None
) -> list[list[Answer]]:
    """Return the ``top`` likeliest classes by logits (b, c), with what each term (b, c) added."""
    shares = logits.softmax(-1)
    best = shares.topk(min(top, len(asked.names)), dim=-1).indices.tolist()
    return [
        [
            Answer(
                asked.names[i],
                float(shares[row, i]),
                float(logits[row, i]),
                bool(asked.texts.seen[i] >= 0),
                {name: float(part[row, i]) for name, part in (added or {}).items()},
            )
            for i in which
        ]
        for row, which in enumerate(best)
    ]


def open_model(
    run: str | Path, *, encoder: Encoder | None = None, checkpoint: str = "", device: str = ""
) -> OpenModel:
    """Open a run once, to ask it about photo after photo.

    ``aape.predict`` takes it instead of a run's folder.

    Args:
        run: a run folder of classification that was trained on a bank.
        encoder: an open encoder instead of the one that the run names.
        checkpoint: local weights of the encoder, where the run was made with such.
        device: ``auto``, ``cpu``, ``cuda``; by default the run's.

    Raises:
        UserError: the run has no adapter of classification, was trained on a file of features, or
            belongs to another encoder.
    """
    return OpenModel.open(run, encoder=encoder, checkpoint=checkpoint, device=device)


def classification_weights(folder: RunFolder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and description of a run that can label photos.

    Raises:
        UserError: it cannot; what it is, and what to do with it.
    """
    tensors, about = folder.load_classifier()
    if not about.get("template"):
        raise UserError(
            f"{folder.path} was trained on a file of features, which says nothing of photos.",
            "Train on a bank: aape train --bank BANK.",
        )
    return tensors, about


def trained_positions(names: Sequence[str], trained: Sequence[str]) -> list[int]:
    """Return the place of each class among the trained ones, or -1; names may repeat.

    >>> trained_positions(["missile", "cat", "missile"], ["missile", "missile"])
    [0, -1, 1]
    """
    free: dict[str, list[int]] = {}
    for position, name in enumerate(trained):
        free.setdefault(name, []).append(position)
    return [free[name].pop(0) if free.get(name) else -1 for name in names]

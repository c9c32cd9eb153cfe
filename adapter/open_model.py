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
from .arrays import texts_as_they_are
from .asked_classes import AskedClass, asked_classes
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
    """The classes of a question, and what the adapter is given of them."""

    asked: tuple[AskedClass, ...]
    texts: ClassSet

    @property
    def labels(self) -> list[str]:
        """What they are called in an answer: the name, with the class id if it repeats."""
        return [entry.label for entry in self.asked]


@dataclass(frozen=True)
class Answer:
    """One class of the answer for a photo.

    ``terms`` add up to ``logit``. ``trained`` is false for a class that is judged by its name.
    ``class_id`` is that of the run's data set; a class that was only named has none.
    """

    label: str
    class_id: int | None
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
        encoder = encoder or open_encoder(folder, about, checkpoint, device)
        return cls(folder, encoder, tensors, about)

    @one_or_many("classes", "also")
    def classes(
        self,
        classes: str | Sequence[str] = (),
        also: str | Sequence[str] = (),
        *,
        say: bool = False,
    ) -> AskedClasses:
        """Return the classes of a question, as ``aape predict`` reads them: by name or by id.

        Args:
            classes: names or ids to choose from; by default all of the run's data set.
            also: further names. say: tell how each was read.

        Raises:
            UserError: a name is empty, or is no text.
        """
        if classes or also:
            return self.texts_of(asked_classes(self.about, classes, also, say=say))
        if self._own is None:
            self._own = self.texts_of(asked_classes(self.about))
        return self._own

    def texts_of(self, asked: Sequence[AskedClass], *, cache: bool = False) -> AskedClasses:
        """Return classes with the texts (c, d) that the adapter wants of them.

        Those that the run keeps, and for other names the templates. ``cache`` keeps the latter on
        the disk; otherwise in memory only, for names may be a stranger's.
        """
        kept, trained = self._tensors.get("class_texts"), self.fitted.text
        rows: list[Tensor | None] = [
            trained[entry.seen]
            if entry.seen >= 0
            else None
            if kept is None or entry.class_id is None
            else kept[entry.class_id]
            for entry in asked
        ]
        lacking = [entry.name for entry, row in zip(asked, rows) if row is None]
        by_name = iter(self._by_name(lacking, cache))
        text = torch.stack([next(by_name) if row is None else row for row in rows])
        seen = torch.tensor([entry.seen for entry in asked])
        return AskedClasses(tuple(asked), texts_as_they_are(text, seen))

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

        Raises:
            UserError: with ``strict``, a photo cannot be read; or as :meth:`classes`.
        """
        from .predict import predict

        return predict(
            self, images, top, classes, also, strict=strict, min_confidence=min_confidence
        )

    def features_of(
        self, images: Sequence[Any], strict: bool = False
    ) -> tuple[Tensor, list[int], dict[int, str]]:
        """Return features (m, d) of the photos that can be read, their places, errors by place.

        Raises:
            UserError: with ``strict``, a photo cannot be read.
        """
        parts = [torch.zeros(0, self.encoder.dim)]
        kept: list[int] = []
        errors: dict[int, str] = {}
        for start in range(0, len(images), _PHOTOS_AT_ONCE):
            pixels: list[Tensor] = []
            for place, image in enumerate(images[start : start + _PHOTOS_AT_ONCE], start):
                try:
                    pixels.append(self.pixels(image))
                    kept.append(place)
                except PictureError as error:
                    if strict:
                        told = image if isinstance(image, str | Path) else place
                        raise UserError(f"The image {told} cannot be read: {error}.") from error
                    errors[place] = str(error)
            if pixels:
                parts.append(self.features(torch.stack(pixels)))
        return torch.cat(parts), kept, errors

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

    def _by_name(self, names: Sequence[str], cache: bool = False) -> list[Tensor]:
        """Return the text (d,) of each name; also kept on the disk with ``cache``."""
        ensemble = (self.about.get("class_text") or {}).get("base") == "ensemble"
        templates = self.about["ensemble"] if ensemble else [self.about["template"]]
        lacking = [name for name in dict.fromkeys(names) if name not in self._named]
        found: dict[str, Tensor] = {
            name: self._named[name] for name in names if name in self._named
        }
        if lacking:
            texts = [template.replace("{}", name) for name in lacking for template in templates]
            rows = torch.from_numpy(encode_texts(self.encoder, texts, cache=cache))
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
    best = shares.topk(min(top, len(asked.asked)), dim=-1).indices.tolist()
    return [
        [
            Answer(
                asked.asked[i].label,
                asked.asked[i].class_id,
                float(shares[row, i]),
                float(logits[row, i]),
                asked.asked[i].seen >= 0,
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


def open_encoder(
    folder: RunFolder, about: dict[str, Any], checkpoint: str = "", device: str = ""
) -> Encoder:
    """Open the encoder that a run was trained with.

    Raises:
        UserError: the run was made with local weights, and none are given.
    """
    from ..pipeline.encoders import load_encoder

    wanted = Config.from_yaml(folder.path / "config.yaml").encoder
    name = about["encoder"].split("@")[0] if wanted.name == "auto" else wanted.name
    weights = own_weights(name, wanted.checkpoint, checkpoint)
    return load_encoder(name, weights, device or wanted.device)


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

"""Classification data from a file of cached features: any encoder, no images needed."""

from __future__ import annotations

import random
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...pipeline.datasets import base_new_classes
from ...pipeline.errors import UserError
from ..shots import ALL, Shots
from .data import ClassificationData, ClassTexts, LabelledImages
from .draws import VAL_SHOTS, check_shots, no_images, sample_rows
from .feature_checks import class_ids, class_names, positive, read_features

if TYPE_CHECKING:
    from ...pipeline.bank import PromptBank

_UNIT_TOLERANCE = 0.05  # half precision moves lengths by 0.001
_TRAINING = re.compile(r"train(?:_(\d+)shot)?\.features")


class FileSource:
    """Cached features of a user in one safetensors file.

    Tensors: ``train.features`` (a pool that shots are sampled from) or ``train_{s}shot.features``
    (a fixed draw), ``test.features``, optionally ``val.features``, each (n, d) with ``.labels``
    (n,); ``class_text.features`` (c, d); optionally ``ensemble_text.features`` (c, d),
    ``waffle_text.features`` (c, d), ``prompt_text.features`` (c, k, d) with ``prompt_text.mask``
    (c, k). Other files put ``text`` first: ``text_ensemble``, ``text_descriptions`` (c, d), the
    mean of a class's descriptions, and ``text_name``, which stands in for an absent class text.
    Metadata: ``classnames`` (JSON list), ``encoder``, optionally ``encoder_fingerprint``,
    ``logit_scale``, ``note`` and ``text_norm``: the mean length of the class texts before they were
    scaled to 1. Class texts that come unscaled tell their lengths themselves.
    """

    def __init__(
        self, path: str | Path, bank: PromptBank | None = None, *, repeat: bool = False
    ) -> None:
        """Read the file; prompts come from ``bank`` if given, else from the file.

        ``repeat`` draws classes with fewer images than shots with replacement, as CoOp does.

        Raises:
            UserError: the file is absent, is no safetensors file, lacks a tensor, or its features
                come from another encoder than the bank's prompts.
        """
        self.path = Path(path)
        self.tensors, self.metadata = read_features(self.path)
        self.dataset = self.metadata.get("dataset") or self.path.stem
        self.bank, self.repeat = bank, repeat
        self.notes = [self.metadata["note"]] if self.metadata.get("note") else []
        if bank is not None:
            self._check_bank(bank)

    def _check_bank(self, bank: PromptBank) -> None:
        metadata = bank.metadata
        own = self.metadata.get("encoder_fingerprint")
        label = self.metadata.get("encoder", "unknown")
        same = (
            own == metadata.encoder_fingerprint if own else _same_name(label, metadata.encoder_id)
        )
        if not same:
            raise UserError(
                f"The features of {self.path} come from encoder {own or label!r}, the bank"
                f" {bank.path} from {metadata.encoder_fingerprint!r}.",
                "Embed both with the same encoder.",
            )
        if not own:
            self.notes.append(
                f"{self.path.name} names its encoder ({label}) but not its weights; they are taken"
                f" to be those of {metadata.encoder_fingerprint}"
            )

    @property
    def class_names(self) -> list[str]:
        """Names of all classes."""
        return self.texts.names

    @cached_property
    def texts(self) -> ClassTexts:
        """Class texts of the file and the prompts of the bank or the file."""
        template = self._array("class_text.features", self._text("name", "template", "class"))
        names = class_names(self.path, self.metadata, len(template))
        if self.bank is not None:
            if list(self.bank.metadata.class_names) != names:
                raise UserError(
                    f"The bank {self.bank.path} and the features {self.path} have different"
                    " class names.",
                    "Make the bank from the same list of names, in the same order.",
                )
            prompts, mask = self.bank.reference_embeddings(bare=True)
        elif "prompt_text.features" in self.tensors:
            prompts = self._array("prompt_text.features")
            mask = np.linalg.norm(prompts, axis=-1) > 0.5
            if "prompt_text.mask" in self.tensors:
                mask = self.tensors["prompt_text.mask"].astype(bool)
        elif (mean := self._text("descriptions", "prompts")) is not None:
            prompts, mask = mean[:, None], np.ones((len(template), 1), dtype=bool)
        else:
            prompts, mask = template[:, None], np.ones((len(template), 1), dtype=bool)
            self.notes.append("no LLM prompts were given: the template is the only prompt")
        ensemble = self._text("ensemble")
        ensemble = template if ensemble is None else ensemble
        waffle = self._array("waffle_text.features", template)
        return ClassTexts(
            names=names,
            template=template,
            ensemble=ensemble,
            prompts=prompts,
            mask=mask,
            waffle=waffle if "waffle_text.features" in self.tensors else None,
            norms=self._norms(len(template)),
        )

    def _norms(self, count: int) -> np.ndarray | None:
        """Lengths of the class texts: of the vectors themselves, else of the metadata."""
        name = "class_text.features"
        if name not in self.tensors:
            name = self._text_name("name", "template", "class") or name
        raw = np.linalg.norm(self.tensors[name].astype(np.float32), axis=-1)
        if np.abs(raw - 1).max() > _UNIT_TOLERANCE:
            return raw
        if "text_norm" not in self.metadata:
            return None
        norm = positive(self.path, self.metadata, "text_norm", 1.0)
        return np.full(count, norm, np.float32)

    def _text(self, *kinds: str) -> np.ndarray | None:
        """Return the first text tensor of these kinds (c, d), whichever way round it is named."""
        name = self._text_name(*kinds)
        return None if name is None else self._array(name)

    def _text_name(self, *kinds: str) -> str | None:
        for kind in kinds:
            for name in (f"{kind}_text.features", f"text_{kind}.features"):
                if name in self.tensors and self.tensors[name].ndim == 2:
                    return name
        return None

    def _array(self, name: str, default: np.ndarray | None = None) -> np.ndarray:
        if name not in self.tensors:
            if default is not None:
                return default
            raise UserError(
                f"{self.path} has no tensor {name!r} (it has {', '.join(sorted(self.tensors))}).",
                "docs/method.md lists what a feature file holds.",
            )
        array = self.tensors[name].astype(np.float32)
        norm = np.linalg.norm(array, axis=-1, keepdims=True)
        return array / np.maximum(norm, 1e-12)

    def split(self, name: str) -> LabelledImages:
        """Return a split of the file."""
        if f"{name}.features" not in self.tensors and name == "val":
            return no_images(self.texts.template.shape[1])
        x = self._array(f"{name}.features")
        if f"{name}.labels" not in self.tensors:
            raise UserError(f"{self.path} has {name}.features but no {name}.labels.")
        return LabelledImages(x, self.tensors[f"{name}.labels"].astype(np.int64).reshape(-1))

    def draw(self, shots: Shots, seed: int) -> ClassificationData:
        """Return the fixed draw of that many shots, or a sample of the pool by the seed."""
        notes = list(self.notes)
        if "train.features" in self.tensors:
            train, val = self._sample(self.split("train"), self.split("val"), shots, seed)
        elif f"train_{shots}shot.features" in self.tensors:
            train, val = self.split(f"train_{shots}shot"), self.split("val")
            notes.append("the file fixes the shots: seeds differ in initialisation and order only")
        else:
            found = sorted(name for name in self.tensors if _TRAINING.fullmatch(name))
            raise UserError(
                f"{self.path} has neither train.features nor train_{shots}shot.features"
                f" (it has {', '.join(found) or 'no training features'}).",
                _shots_that_exist(found),
            )
        return self._data(train, val, shots, seed, notes)

    def to_test(self) -> ClassificationData:
        """Return texts and test images alone; the file needs no training features."""
        none = no_images(self.texts.template.shape[1])
        return self._data(none, none, 0, 0, list(self.notes))

    def _data(
        self,
        train: LabelledImages,
        val: LabelledImages,
        shots: Shots,
        seed: int,
        notes: list[str],
    ) -> ClassificationData:
        count = len(self.texts.names)
        base, new = base_new_classes(count)
        return ClassificationData(
            dataset=self.dataset,
            encoder=self.metadata.get("encoder_fingerprint")
            or self.metadata.get("encoder", "unknown"),
            texts=self.texts,
            train=train,
            val=val,
            test=self.split("test"),
            base_ids=class_ids(self.path, self.metadata, "base_ids", base, count),
            new_ids=class_ids(self.path, self.metadata, "new_ids", new, count),
            shots=shots,
            seed=seed,
            logit_scale=positive(self.path, self.metadata, "logit_scale", 100.0),
            notes=list(dict.fromkeys(notes + self.notes)),
        )

    def _sample(
        self, train: LabelledImages, val: LabelledImages, shots: Shots, seed: int
    ) -> tuple[LabelledImages, LabelledImages]:
        check_shots(self.dataset, self.texts.names, train.y, shots, self.repeat)
        generator = random.Random(seed)
        chosen = sample_rows(train.y, shots, generator, self.repeat)
        held = sample_rows(val.y, ALL if shots == ALL else min(shots, VAL_SHOTS), generator)
        return (
            LabelledImages(train.x[chosen], train.y[chosen]),
            LabelledImages(val.x[held], val.y[held]),
        )


def _shots_that_exist(tensors: list[str]) -> str:
    """Say which shots a file has, by the names of its training tensors."""
    fixed = sorted(int(n) for name in tensors for n in _TRAINING.findall(name) if n)
    if not fixed:
        return (
            "Add train.features and train.labels; docs/method.md lists what a feature file holds."
        )
    return f"Choose shots {' or '.join(map(str, fixed))}."


def _same_name(label: str, encoder_id: str) -> bool:
    """Say whether "OpenAI CLIP ViT-B/32" may be "ViT-B-32-quickgelu/openai"."""
    architecture = re.sub(r"[^a-z0-9]", "", encoder_id.split("/")[0].lower().split("-quickgelu")[0])
    return bool(architecture) and architecture in re.sub(r"[^a-z0-9]", "", label.lower())

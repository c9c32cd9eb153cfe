"""Where classification data comes from: a bank with its data set and encoder, or cached features.

A source is opened once and drawn from once a seed: test features and texts are shared.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..pipeline.datasets import base_new_classes, few_shot_train_val
from ..pipeline.errors import UserError
from .classification_data import ClassificationData, ClassTexts, LabelledImages, check_enough

if TYPE_CHECKING:
    from ..pipeline.bank import PromptBank
    from ..pipeline.datasets import Dataset, Item
    from ..pipeline.encoders.base import Encoder
    from ..pipeline.pictures import Unreadable

WAFFLE_TEXTS = 8
_VAL_SHOTS = 4  # as CoOp


class Source(Protocol):
    """Something that gives a draw of shots: same shots and seed, same data."""

    dataset: str

    def draw(self, shots: int, seed: int) -> ClassificationData:
        """Return one draw."""
        ...


class BankSource:
    """A bank, the images of its data set, and the encoder that both were embedded with."""

    def __init__(
        self,
        bank: PromptBank,
        dataset: Dataset,
        encoder: Encoder,
        *,
        views: int = 0,
        waffle: bool = True,
        repeat: bool = False,
        workers: int = 2,
        batch_size: int = 64,
        strict: bool = False,
    ) -> None:
        """Check that the three belong together.

        ``views`` are augmented copies of each training image; ``repeat`` draws classes with fewer
        images than shots with replacement, as CoOp does, where it would be an error otherwise;
        ``strict`` stops at a photo that cannot be read, which is left out otherwise.

        Raises:
            UserError: the bank was made for other classes or by another encoder.
        """
        bank.check_encoder(encoder)
        if list(bank.metadata.class_names) != dataset.class_names:
            missing = sorted(set(dataset.class_names) - set(bank.metadata.class_names))
            raise UserError(
                f"The bank {bank.path} is for other classes than data set"
                f" {dataset.manifest.name!r}"
                + (f" (without {', '.join(map(repr, missing[:5]))})." if missing else "."),
                "Make one for this data set: aape generate-prompts --dataset"
                f" {dataset.manifest.name}.",
            )
        self.bank, self.images, self.encoder = bank, dataset, encoder
        self.dataset = dataset.manifest.name
        self.views, self.waffle, self.repeat = views, waffle, repeat
        self.workers, self.batch_size, self.strict = workers, batch_size, strict

    @cached_property
    def texts(self) -> ClassTexts:
        """Class texts: the templates of the manifest and the kept prompts of the bank."""
        from ..pipeline.encode import class_embeddings

        manifest, names = self.images.manifest, self.images.class_names
        templates = list(dict.fromkeys([*manifest.templates, *manifest.ensemble]))
        prompts, mask = self.bank.reference_embeddings()
        waffle = waffle_templates(manifest.templates[0], names) if self.waffle else []
        return ClassTexts(
            names=names,
            template=class_embeddings(self.encoder, names, manifest.templates[:1]),
            ensemble=class_embeddings(self.encoder, names, templates),
            prompts=prompts,
            mask=mask,
            waffle=class_embeddings(self.encoder, names, waffle) if waffle else None,
        )

    def features(self, items: Sequence[Item], views: int = 0, seed: int = 0) -> LabelledImages:
        """Return the cached features of those of some images that can be read."""
        return self._features(items, views, seed)[0]

    def _features(
        self, items: Sequence[Item], views: int = 0, seed: int = 0
    ) -> tuple[LabelledImages, tuple[Unreadable, ...]]:
        from ..pipeline.features import check_there, image_features

        paths = [item.path for item in items]
        found = image_features(
            self.encoder,
            paths,
            views=views,
            seed=seed,
            workers=self.workers,
            batch_size=self.batch_size,
            strict=self.strict,
        )
        check_there(found.unreadable, len(paths))
        labels = np.array([item.label for item in items], dtype=np.int64)[found.kept]
        return LabelledImages(found.x, labels, found.views, tuple(found.paths)), found.unreadable

    @cached_property
    def test(self) -> LabelledImages:
        """Test features, once for all draws."""
        return self._test[0]

    @cached_property
    def _test(self) -> tuple[LabelledImages, str]:
        """Test features, and a note of what could not be read."""
        from ..pipeline.features import say_left_out

        items = self.images.items("test")
        found, left_out = self._features(items)
        return found, say_left_out(left_out, len(items), "test photos")

    def _sample(
        self, train_items: Sequence[Item], val_items: Sequence[Item], shots: int, seed: int
    ) -> tuple[LabelledImages, LabelledImages, str]:
        """Sample shots as CoOp does, of the photos that can be read; also return a note.

        Which they are is known of those that were sampled alone, so the sample is drawn again
        without those that cannot be read until there are none: the same for the same files.
        """
        from ..pipeline.features import say_left_out

        left_out: list[Unreadable] = []
        bad: set[Path] = set()
        while True:
            train_items = [item for item in train_items if item.path not in bad]
            val_items = [item for item in val_items if item.path not in bad]
            self._check_shots(train_items, shots)
            train, val = few_shot_train_val(train_items, val_items, shots, seed)
            x, new = self._features(train, self.views, seed)
            held, more = self._features(val) if val else (no_images(self.encoder.dim), ())
            if not new and not more:
                whole = len(train_items) + len(val_items) + len(bad)
                return x, held, say_left_out(left_out, whole, "training photos")
            left_out += dict.fromkeys((*new, *more))
            bad |= {entry.path for entry in left_out}

    def _check_shots(self, train_items: Sequence[Item], shots: int) -> None:
        labels = [item.label for item in train_items]
        check_shots(self.dataset, self.images.class_names, labels, 1 if self.repeat else shots)

    def draw(self, shots: int, seed: int) -> ClassificationData:
        """Sample shots as CoOp does, embed what is not embedded yet."""
        train_items = self.images.items("train")
        self._check_shots(train_items, shots)
        try:
            val_items = self.images.items("val")
        except UserError:  # the data set has none: methods then fall back on fixed rules
            val_items = []
        train, val, left_out = self._sample(train_items, val_items, shots, seed)
        base, new = base_new_classes(len(self.images.class_names))
        test, test_left_out = self._test
        said = (self.images.split_note, self.encoder.notes, left_out, test_left_out)
        return ClassificationData(
            dataset=self.dataset,
            encoder=self.encoder.fingerprint,
            texts=self.texts,
            train=train,
            val=val,
            test=test,
            base_ids=base,
            new_ids=new,
            shots=shots,
            seed=seed,
            logit_scale=self.encoder.logit_scale,
            notes=[note for note in said if note],
            tower=self.encoder.prompt_tower(),
        )


class FileSource:
    """Cached features of a user in one safetensors file.

    Tensors: ``train.features`` (a pool that shots are sampled from) or ``train_{s}shot.features``
    (a fixed draw), ``test.features``, optionally ``val.features``, each (n, d) with ``.labels``
    (n,); ``class_text.features`` (c, d); optionally ``ensemble_text.features`` (c, d),
    ``waffle_text.features`` (c, d), ``prompt_text.features`` (c, k, d) with ``prompt_text.mask``
    (c, k). Metadata: ``classnames`` (JSON list), ``encoder``, optionally ``encoder_fingerprint``,
    ``logit_scale`` and ``note``.
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

    @cached_property
    def texts(self) -> ClassTexts:
        """Class texts of the file and the prompts of the bank or the file."""
        template = self._array("class_text.features")
        names = json.loads(self.metadata.get("classnames", "[]")) or [
            f"class {i}" for i in range(len(template))
        ]
        if self.bank is not None:
            if list(self.bank.metadata.class_names) != names:
                raise UserError(
                    f"The bank {self.bank.path} and the features {self.path} have different"
                    " class names.",
                    "Make the bank from the same list of names, in the same order.",
                )
            prompts, mask = self.bank.reference_embeddings()
        elif "prompt_text.features" in self.tensors:
            prompts = self._array("prompt_text.features")
            mask = np.linalg.norm(prompts, axis=-1) > 0.5
            if "prompt_text.mask" in self.tensors:
                mask = self.tensors["prompt_text.mask"].astype(bool)
        else:
            prompts, mask = template[:, None], np.ones((len(template), 1), dtype=bool)
            self.notes.append("no LLM prompts were given: the template is the only prompt")
        ensemble = self._array("ensemble_text.features", template)
        waffle = self._array("waffle_text.features", template)
        return ClassTexts(
            names=names,
            template=template,
            ensemble=ensemble,
            prompts=prompts,
            mask=mask,
            waffle=waffle if "waffle_text.features" in self.tensors else None,
        )

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

    def draw(self, shots: int, seed: int) -> ClassificationData:
        """Return the fixed draw of that many shots, or a sample of the pool by the seed."""
        notes = list(self.notes)
        if "train.features" in self.tensors:
            train, val = self._sample(self.split("train"), self.split("val"), shots, seed)
        elif f"train_{shots}shot.features" in self.tensors:
            train, val = self.split(f"train_{shots}shot"), self.split("val")
            notes.append("the file fixes the shots: seeds differ in initialisation and order only")
        else:
            found = sorted(
                name for name in self.tensors if re.fullmatch(r"train.*\.features", name)
            )
            raise UserError(
                f"{self.path} has neither train.features nor train_{shots}shot.features"
                f" (it has {', '.join(found) or 'no training features'}).",
                "Choose --shots accordingly.",
            )
        base, new = base_new_classes(len(self.texts.names))
        return ClassificationData(
            dataset=self.dataset,
            encoder=self.metadata.get("encoder_fingerprint")
            or self.metadata.get("encoder", "unknown"),
            texts=self.texts,
            train=train,
            val=val,
            test=self.split("test"),
            base_ids=json.loads(self.metadata.get("base_ids", "null")) or base,
            new_ids=json.loads(self.metadata.get("new_ids", "null")) or new,
            shots=shots,
            seed=seed,
            logit_scale=float(self.metadata.get("logit_scale", 100.0)),
            notes=list(dict.fromkeys(notes + self.notes)),
        )

    def _sample(
        self, train: LabelledImages, val: LabelledImages, shots: int, seed: int
    ) -> tuple[LabelledImages, LabelledImages]:
        check_shots(self.dataset, self.texts.names, train.y, 1 if self.repeat else shots)
        generator = random.Random(seed)
        chosen = sample_rows(train.y, shots, generator, self.repeat)
        held = sample_rows(val.y, min(shots, _VAL_SHOTS), generator)
        return (
            LabelledImages(train.x[chosen], train.y[chosen]),
            LabelledImages(val.x[held], val.y[held]),
        )


def from_bank(
    bank: PromptBank, dataset: Dataset, encoder: Encoder, shots: int, seed: int, **options: Any
) -> ClassificationData:
    """Return one draw of a bank's data set; ``options`` are those of :class:`BankSource`."""
    return BankSource(bank, dataset, encoder, **options).draw(shots, seed)


def from_feature_file(
    path: str | Path, shots: int, seed: int, bank: PromptBank | None = None
) -> ClassificationData:
    """Return one draw of a file of cached features; :class:`FileSource` has its format."""
    return FileSource(path, bank).draw(shots, seed)


def read_features(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read all tensors and the metadata of a safetensors file.

    Raises:
        UserError: the file is absent or of another format.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path} does not exist.")
    try:
        with safe_open(path, framework="np") as stream:
            names = list(stream.keys())
            return {name: stream.get_tensor(name) for name in names}, stream.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}.") from error


def check_shots(
    dataset: str, names: list[str], labels: Sequence[int] | np.ndarray, shots: int
) -> None:
    """Stop before anything is sampled with replacement.

    Raises:
        UserError: a label is out of range, or a class has fewer images than shots.
    """
    array = np.asarray(labels, dtype=np.int64)
    if len(array) and (array.min() < 0 or array.max() >= len(names)):
        raise UserError(
            f"The training labels of {dataset} run from {array.min()} to {array.max()}, but there"
            f" are {len(names)} classes: 0 to {len(names) - 1}."
        )
    check_enough(
        dataset,
        names,
        array,
        shots,
        "add images, or draw with replacement: --repeat-images.",
    )


def sample_rows(
    labels: np.ndarray, shots: int, generator: random.Random, repeat: bool = False
) -> np.ndarray:
    """Sample row numbers, ``shots`` a class, in the order in which classes first occur.

    A class with fewer gives all it has, or with ``repeat`` draws with replacement, as CoOp does.
    """
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        rows.setdefault(label, []).append(row)
    chosen: list[int] = []
    for candidates in rows.values():
        if repeat and len(candidates) < shots:
            chosen += generator.choices(candidates, k=shots)
        else:
            chosen += generator.sample(candidates, min(shots, len(candidates)))
    return np.array(chosen, dtype=np.int64)


def no_images(dim: int) -> LabelledImages:
    """Return an empty split."""
    return LabelledImages(np.zeros((0, dim), np.float32), np.zeros(0, np.int64))


def waffle_templates(template: str, names: list[str], count: int = WAFFLE_TEXTS) -> list[str]:
    """Return templates with random words and letters (WaffleCLIP, Roth et al. 2023).

    The same for every class and every run, so what they add holds no knowledge of a class: half
    end in "which has (random words)", half in "which has (random letters)".
    """
    generator = random.Random(0)
    words = sorted({word for name in names for word in re.findall(r"[a-z]{3,}", name.lower())})
    words += ["cloud", "marble", "ticket", "violin", "harbour", "pepper", "saddle", "lantern"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = []
    for i in range(count):
        if i % 2 == 0:
            noise = " ".join(generator.sample(words, 2))
        else:
            noise = " ".join("".join(generator.choices(letters, k=5)) for _ in range(2))
        texts.append(f"{template.rstrip('.')}, which has {noise}.")
    return texts


def _same_name(label: str, encoder_id: str) -> bool:
    """Say whether "OpenAI CLIP ViT-B/32" may be "ViT-B-32-quickgelu/openai"."""
    architecture = re.sub(r"[^a-z0-9]", "", encoder_id.split("/")[0].lower().split("-quickgelu")[0])
    return bool(architecture) and architecture in re.sub(r"[^a-z0-9]", "", label.lower())

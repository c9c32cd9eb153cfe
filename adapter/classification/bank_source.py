"""Classification data from a bank, the images of its data set, and the encoder of both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...pipeline.datasets import base_new_classes, few_shot_train_val
from ...pipeline.encoders.base import KnowsTextNorms
from ...pipeline.errors import UserError
from ..shots import ALL, Shots
from .best_names import OtherTexts
from .data import ClassificationData, ClassTexts, LabelledImages
from .draws import check_shots, no_images, waffle_templates

if TYPE_CHECKING:
    from ...pipeline.bank import PromptBank
    from ...pipeline.datasets import Dataset, Item
    from ...pipeline.encoders.base import Encoder
    from ...pipeline.encoders.before_projection import BeforeProjection
    from ...pipeline.pictures import Unreadable

_MEASURED_TEXTS = 64  # lengths within a model differ by some 7 percent


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
        before: bool = False,
        workers: int | None = None,
        batch_size: int = 64,
        strict: bool = False,
    ) -> None:
        """Check that the three belong together.

        ``views`` are augmented copies of each training image; ``repeat`` draws classes with fewer
        images than shots with replacement, as CoOp does, where it would be an error otherwise;
        ``before`` also gives the features before CLIP's last projection, and the others from them;
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
        self.before = _before_projection(encoder) if before else None
        self.workers, self.batch_size, self.strict = workers, batch_size, strict

    @property
    def class_names(self) -> list[str]:
        """Names of all classes."""
        return self.images.class_names

    @cached_property
    def texts(self) -> ClassTexts:
        """Class texts: the templates of the manifest and the kept prompts of the bank."""
        from ...pipeline.embed.texts import class_embeddings

        manifest, names = self.images.manifest, self.images.class_names
        templates = list(dict.fromkeys([*manifest.templates, *manifest.ensemble]))
        prompts, mask = self.bank.reference_embeddings(bare=True)
        waffle = waffle_templates(manifest.templates[0], names) if self.waffle else []
        return ClassTexts(
            names=names,
            template=class_embeddings(self.encoder, names, manifest.templates[:1]),
            ensemble=class_embeddings(self.encoder, names, templates),
            prompts=prompts,
            mask=mask,
            waffle=class_embeddings(self.encoder, names, waffle) if waffle else None,
            norms=self._norms(manifest.templates[0], names),
            keys=tuple(entry.folder or entry.name for entry in manifest.classes),
            others=self._other_names(templates),
        )

    def _other_names(self, templates: list[str]) -> OtherTexts | None:
        """Other names that the bank knows, in the templates of the manifest."""
        from ...pipeline.embed.texts import class_embeddings

        found = self.bank.other_names(self.dataset)
        names = [name for of_class in found for name in of_class]
        if not names:
            return None
        owner = [class_id for class_id, of_class in enumerate(found) for _ in of_class]
        return OtherTexts(
            names=names,
            owner=np.array(owner, dtype=np.int64),
            template=class_embeddings(self.encoder, names, templates[:1]),
            ensemble=class_embeddings(self.encoder, names, templates),
        )

    def _norms(self, template: str, names: list[str]) -> np.ndarray | None:
        """Mean length of some template vectors for all classes, where the encoder can tell it."""
        if not isinstance(self.encoder, KnowsTextNorms):
            return None
        some = names[:: max(1, len(names) // _MEASURED_TEXTS)][:_MEASURED_TEXTS]
        norms = self.encoder.text_norms([template.replace("{}", name) for name in some])
        return np.full(len(names), norms.mean(), np.float32)

    def features(self, items: Sequence[Item], views: int = 0, seed: int = 0) -> LabelledImages:
        """Return the cached features of those of some images that can be read."""
        return self._features(items, views, seed)[0]

    def _features(
        self, items: Sequence[Item], views: int = 0, seed: int = 0
    ) -> tuple[LabelledImages, tuple[Unreadable, ...]]:
        from ...pipeline.embed.images import image_features
        from ...pipeline.embed.left_out import check_there

        paths = [item.path for item in items]
        # of the encoder itself, or of its tower before the last projection: one pass either way
        found = image_features(
            self.before or self.encoder,  # type: ignore[arg-type]
            paths,
            views=views,
            seed=seed,
            workers=self.workers,
            batch_size=self.batch_size,
            strict=self.strict,
        )
        check_there(found.unreadable, len(paths))
        labels = np.array([item.label for item in items], dtype=np.int64)[found.kept]
        photos = tuple(found.paths)
        if self.before is None:
            images = LabelledImages(found.x, labels, found.views, photos, contents=found.contents)
            return images, found.unreadable
        after = self.before.features(found.x)
        after_views = None if found.views is None else self.before.features(found.views)
        images = LabelledImages(
            after, labels, after_views, photos, found.x, found.views, found.contents
        )
        return images, found.unreadable

    @cached_property
    def test(self) -> LabelledImages:
        """Test features, once for all draws."""
        return self._test[0]

    @cached_property
    def _test(self) -> tuple[LabelledImages, str]:
        """Test features, and a note of what could not be read."""
        from ...pipeline.embed.left_out import say_left_out

        items = self.images.items("test")
        found, left_out = self._features(items)
        return found, say_left_out(left_out, len(items), "test photos")

    def _sample(
        self, train_items: Sequence[Item], val_items: Sequence[Item], shots: Shots, seed: int
    ) -> tuple[LabelledImages, LabelledImages, str]:
        """Sample shots as CoOp does, of the photos that can be read; also return a note.

        Which they are is known of those that were sampled alone, so the sample is drawn again
        without those that cannot be read until there are none: the same for the same files.
        """
        from ...pipeline.embed.left_out import say_left_out

        left_out: list[Unreadable] = []
        bad: set[Path] = set()
        while True:
            train_items = [item for item in train_items if item.path not in bad]
            val_items = [item for item in val_items if item.path not in bad]
            self._check_shots(train_items, shots)
            train, val = (
                (train_items, val_items)
                if shots == ALL
                else few_shot_train_val(train_items, val_items, shots, seed)
            )
            x, new = self._features(train, self.views, seed)
            held, more = self._features(val) if val else (no_images(self.encoder.dim), ())
            if not new and not more:
                whole = len(train_items) + len(val_items) + len(bad)
                return x, held, say_left_out(left_out, whole, "training photos")
            left_out += dict.fromkeys((*new, *more))
            bad |= {entry.path for entry in left_out}

    def _check_shots(self, train_items: Sequence[Item], shots: Shots) -> None:
        labels = [item.label for item in train_items]
        check_shots(self.dataset, self.images.class_names, labels, shots, self.repeat)

    def draw(self, shots: Shots, seed: int) -> ClassificationData:
        """Sample shots as CoOp does, embed what is not embedded yet."""
        train_items = self.images.items("train")
        self._check_shots(train_items, shots)
        try:
            val_items = self.images.items("val")
        except UserError:  # the data set has none: methods then fall back on fixed rules
            val_items = []
        train, val, left_out = self._sample(train_items, val_items, shots, seed)
        return self._data(train, val, shots, seed, left_out)

    def to_test(self) -> ClassificationData:
        """Return texts and test images alone: ImageNet's variants have no training images."""
        none = no_images(self.encoder.dim)
        return self._data(none, none, 0, 0, "")

    def _data(
        self, train: LabelledImages, val: LabelledImages, shots: Shots, seed: int, left_out: str
    ) -> ClassificationData:
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
            projection=None if self.before is None else self.before.projection,
        )


def _before_projection(encoder: Encoder) -> BeforeProjection | None:
    """Return the image tower without its last projection, where the encoder has one to take off."""
    take_off = getattr(encoder, "before_projection", None)
    return take_off() if take_off is not None else None

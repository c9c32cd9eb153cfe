"""Classification data from a bank, the images of its data set, and the encoder of both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.datasets import base_new_classes, few_shot_train_val
from ...pipeline.encoders.base import KnowsTextNorms
from ...pipeline.errors import UserError
from .data import ClassificationData, ClassTexts, LabelledImages
from .draws import check_shots, no_images, waffle_templates

if TYPE_CHECKING:
    from ...pipeline.bank import PromptBank
    from ...pipeline.datasets import Dataset, Item
    from ...pipeline.encoders.base import Encoder

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
        workers: int = 2,
        batch_size: int = 64,
    ) -> None:
        """Check that the three belong together.

        ``views`` are augmented copies of each training image; ``repeat`` draws classes with fewer
        images than shots with replacement, as CoOp does, where it would be an error otherwise.

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
        self.workers, self.batch_size = workers, batch_size

    @cached_property
    def texts(self) -> ClassTexts:
        """Class texts: the templates of the manifest and the kept prompts of the bank."""
        from ...pipeline.embed.texts import class_embeddings

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
            norms=self._norms(manifest.templates[0], names),
        )

    def _norms(self, template: str, names: list[str]) -> np.ndarray | None:
        """Mean length of some template vectors for all classes, where the encoder can tell it."""
        if not isinstance(self.encoder, KnowsTextNorms):
            return None
        some = names[:: max(1, len(names) // _MEASURED_TEXTS)][:_MEASURED_TEXTS]
        norms = self.encoder.text_norms([template.replace("{}", name) for name in some])
        return np.full(len(names), norms.mean(), np.float32)

    def features(self, items: Sequence[Item], views: int = 0, seed: int = 0) -> LabelledImages:
        """Return the cached features of some images."""
        from ...pipeline.embed.images import image_features

        paths = [item.path for item in items]
        found = image_features(
            self.encoder,
            paths,
            views=views,
            seed=seed,
            workers=self.workers,
            batch_size=self.batch_size,
        )
        labels = np.array([item.label for item in items], dtype=np.int64)
        return LabelledImages(found.x, labels, found.views, tuple(paths))

    @cached_property
    def test(self) -> LabelledImages:
        """Test features, once for all draws."""
        return self.features(self.images.items("test"))

    def draw(self, shots: int, seed: int) -> ClassificationData:
        """Sample shots as CoOp does, embed what is not embedded yet."""
        train_items = self.images.items("train")
        labels = [item.label for item in train_items]
        least = 1 if self.repeat else shots
        check_shots(self.dataset, self.images.class_names, labels, least)
        try:
            val_items = self.images.items("val")
        except UserError:  # the data set has none: methods then fall back on fixed rules
            val_items = []
        train, val = few_shot_train_val(train_items, val_items, shots, seed)
        base, new = base_new_classes(len(self.images.class_names))
        notes = [note for note in (self.images.split_note, self.encoder.notes) if note]
        d = self.encoder.dim
        return ClassificationData(
            dataset=self.dataset,
            encoder=self.encoder.fingerprint,
            texts=self.texts,
            train=self.features(train, self.views, seed),
            val=self.features(val) if val else no_images(d),
            test=self.test,
            base_ids=base,
            new_ids=new,
            shots=shots,
            seed=seed,
            logit_scale=self.encoder.logit_scale,
            notes=notes,
            tower=self.encoder.prompt_tower(),
        )


def from_bank(
    bank: PromptBank, dataset: Dataset, encoder: Encoder, shots: int, seed: int, **options: Any
) -> ClassificationData:
    """Return one draw of a bank's data set; ``options`` are those of :class:`BankSource`."""
    return BankSource(bank, dataset, encoder, **options).draw(shots, seed)

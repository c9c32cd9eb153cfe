"""What sets a class apart: for those that are taken for each other, how does one differ?

Which classes these are is told by the class texts alone, or by what untrained CLIP says of training
photos. c classes, d embedding width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..config import ContrastConfig, GenerationConfig
from ..datasets.manifest import Manifest, Query
from ..errors import UserError
from ..progress import step
from .english import article
from .requests import ModelIdentity, Request, asked, fill_query, one_request, sampling_values

if TYPE_CHECKING:
    from ..datasets import Item
    from ..encoders.base import Encoder

_QUESTION = (
    "What does {article} {class} have that tells it from {another}? Do not name the other one."
)


def contrast_requests(
    manifest: Manifest,
    config: GenerationConfig,
    model: ModelIdentity,
    pairs: list[tuple[int, int]],
) -> list[Request]:
    """Return the requests that set the first class of each pair apart from the second.

    Their query is called ``contrast-``, with the id of the other class behind it.
    """
    from ..bank.schema import CONTRAST_PREFIX

    sampling = sampling_values(config)
    names, requests = manifest.class_names, []
    for class_id, other in pairs:
        query = Query(id=f"{CONTRAST_PREFIX}{other}", text=_QUESTION)
        # the other name is put in last: braces in it are data
        filled = fill_query(asked(query, config).replace("{another}", "\0"), names[class_id])
        other_name = f"{article(names[other])} {names[other]}"
        template = asked(query, config).replace("{another}", other_name)
        prompt = filled.replace("\0", other_name)
        for sample in range(config.samples):
            requests.append(
                one_request(
                    manifest, config, model, class_id, query, template, prompt, sampling, sample,
                    "contrast",
                )
            )  # fmt: skip
    return requests


def alike_classes(
    manifest: Manifest, encoder: Encoder, settings: ContrastConfig
) -> list[tuple[int, int]]:
    """Return each class with those it is most alike to, as pairs of class ids.

    ``photos`` are those of the training split; ``auto`` takes the texts where there are none.
    Photos of classes that a protocol holds back as new ones are looked at as well, so that
    ``texts`` is the choice for tables of base and new classes.

    Raises:
        UserError: photos were asked for and the data set has none here.
    """
    from ..embed.texts import class_embeddings

    names = manifest.class_names
    texts = class_embeddings(encoder, names, manifest.templates[:1])
    if settings.by == "texts":
        return most_alike(texts @ texts.T, names, settings.others)
    items = _training_items(manifest, settings.photos)
    if items:
        step(f"Which classes are taken for each other is told by {len(items):,} training photos.")
        likeness = _confusion(items, texts, encoder)
        return most_alike(likeness, names, settings.others)
    if settings.by == "photos":
        raise UserError(
            f"There are no training photos of {manifest.name!r} here.",
            f"Where are they: aape datasets show {manifest.name}. Or --contrast texts.",
        )
    step(f"{manifest.name} has no photos here: class texts tell which classes are alike.")
    return most_alike(texts @ texts.T, names, settings.others)


def most_alike(likeness: np.ndarray, names: list[str], others: int) -> list[tuple[int, int]]:
    """Return for each class the ``others`` most alike (c, c), none of its own name.

    >>> most_alike(np.array([[1, .2, .9], [.2, 1, .3], [.9, .3, 1]]), ["a", "b", "c"], 1)
    [(0, 2), (1, 2), (2, 0)]
    """
    pairs = []
    for class_id, row in enumerate(likeness):
        order = np.argsort(-row, kind="stable").tolist()
        own = names[class_id].casefold()
        near = [other for other in order if names[other].casefold() != own]
        pairs += [(class_id, other) for other in near[:others]]
    return pairs


def _training_items(manifest: Manifest, photos: int) -> list[Item]:
    """Return some training photos of each class, or none where they are not on this machine."""
    from ..datasets import open_dataset

    try:
        dataset = open_dataset(manifest.name)
        if dataset.class_names != manifest.class_names:  # another manifest of that name
            return []
        items = dataset.items("train")
    except UserError:
        return []
    taken: dict[int, list[int]] = {}
    for position in np.random.default_rng(0).permutation(len(items)).tolist():
        of_class = taken.setdefault(items[position].label, [])
        if len(of_class) < photos:
            of_class.append(position)
    return [items[i] for i in sorted(i for places in taken.values() for i in places)]


def _confusion(items: list[Item], texts: np.ndarray, encoder: Encoder) -> np.ndarray:
    """Return (c, c): the probability that untrained CLIP gives to one class on photos of the other,
    both ways together."""
    from ..embed.images import image_features

    found = image_features(encoder, [item.path for item in items])
    labels = np.array([item.label for item in items])[found.kept]
    logits = encoder.logit_scale * found.x @ texts.T
    chance = np.exp(logits - logits.max(1, keepdims=True))
    chance /= chance.sum(1, keepdims=True)
    total = np.zeros((len(texts), len(texts)))
    np.add.at(total, labels, chance)
    mean = total / np.maximum(np.bincount(labels, minlength=len(texts)), 1)[:, None]
    return mean + mean.T

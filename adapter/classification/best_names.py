"""The name under which each class of a draw is known best: chosen on its training photos alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ...pipeline.errors import UserError
from ..method.class_names import OtherNames, choose_names
from .data import ClassificationData

_SHOWN = 8


@dataclass(frozen=True)
class OtherTexts:
    """Other names of the classes of a data set, put into its templates.

    Attributes:
        names: m names. owner: (m,) class ids. template, ensemble: (m, d), unit length.
    """

    names: list[str]
    owner: np.ndarray
    template: np.ndarray
    ensemble: np.ndarray


def with_best_names(data: ClassificationData, trained: list[int]) -> ClassificationData:
    """Return the draw with the texts of the names that its training photos fit best.

    Labels keep the names that they have. Classes that are not trained, new ones, keep their text
    as well: no photo of theirs may be looked at. Validation photos of trained classes join.

    Raises:
        UserError: there are no other names to choose from.
    """
    others = data.texts.others
    if others is None or not len(others.names):
        raise UserError(
            f"No other names of the classes of {data.dataset} are known to choose from.",
            "Ask for them: aape generate-prompts --other-names 10 continues an existing bank.",
        )
    place = {class_id: i for i, class_id in enumerate(trained)}
    rows = [i for i, owner in enumerate(others.owner.tolist()) if owner in place]
    owner = torch.tensor([place[int(others.owner[i])] for i in rows], dtype=torch.long)
    train, val = data.train.of(trained), data.val.of(trained)
    chosen = choose_names(
        torch.from_numpy(np.concatenate([train.x, val.x])),
        torch.from_numpy(np.concatenate([train.y, val.y])),
        torch.from_numpy(data.texts.ensemble[trained]),
        OtherNames(owner, torch.from_numpy(others.ensemble[rows])),
        data.logit_scale,
    )
    template, ensemble = data.texts.template.copy(), data.texts.ensemble.copy()
    said = []
    for class_id, name in zip(trained, chosen):
        if name >= 0:
            template[class_id] = others.template[rows[name]]
            ensemble[class_id] = others.ensemble[rows[name]]
            said.append(f"{data.texts.names[class_id]} as {others.names[rows[name]]}")
    texts = replace(data.texts, template=template, ensemble=ensemble)
    return replace(data, texts=texts, notes=[*data.notes, _note(said, len(trained), data.seed)])


def _note(said: list[str], classes: int, seed: int) -> str:
    shown = ", ".join(repr(text)[1:-1] for text in said[:_SHOWN])
    more = " …" if len(said) > _SHOWN else ""
    names = f": {shown}{more}" if said else ""
    return (
        f"Seed {seed}: training photos gave {len(said)} of {classes} classes another name{names}."
    )

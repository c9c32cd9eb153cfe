"""Steps of an adapter with very many classes: the default recipe at one shot, and prediction.

Class texts are random unit vectors, and each photo lies about the text of its class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scale_memory import Figures, Watch

if TYPE_CHECKING:
    from aape.adapter.method.problem import FewShot

_DIM = 512
_PHOTOS = 1000  # whose class is predicted


def problem(classes: int, photos: int) -> FewShot:
    """Return one photo of each of some classes, evenly spaced among all."""
    import torch
    import torch.nn.functional as F

    from aape.adapter.method.problem import ClassSet, FewShot

    generator = torch.Generator().manual_seed(0)
    w = F.normalize(torch.randn(classes, _DIM, generator=generator), dim=-1)
    y = torch.linspace(0, classes - 1, photos).long()
    noise = torch.randn(photos, _DIM, generator=generator) / _DIM**0.5
    x = F.normalize(0.25 * w[y] + noise, dim=-1)
    texts = ClassSet(w, w, w, None, torch.arange(classes))
    mask = torch.ones(classes, 1, dtype=torch.bool)
    return FewShot(x, y, None, texts, w[:, None], mask, x[:0], y[:0], 100.0, 1)


def train_and_predict(classes: int, photos: int) -> Figures:
    """Train the default recipe on a photo each of ``photos`` classes; label a thousand photos."""
    import torch

    from aape.adapter.method.pieces import pieces
    from aape.adapter.method.recipe import DEFAULT
    from aape.adapter.method.train import fit

    data, watch = problem(classes, photos), Watch()
    with watch("train"):
        fitted = fit(data, DEFAULT, 0)
    fitted.table = {term.name: (0.1, 0.1) for term in fitted.terms}  # each counts here
    x = data.x[torch.arange(_PHOTOS) % len(data.x)]
    with watch("predict"):
        for rows in pieces(x, classes):
            fitted.logits(rows, data.classes).argmax(1)
    return watch.figures

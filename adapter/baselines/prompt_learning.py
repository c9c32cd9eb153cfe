"""CoOp and CoCoOp: learned words before the class names. Slow, since the text tower is in the loop.

b images, c classes, d width, m context vectors of width e. Both start at "a photo of a", the
setting of CoCoOp's base-to-new tables, and see cached features without augmentation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.encoders.prompt_tower import PromptTower
from ...pipeline.errors import UserError
from ..method.problem import ClassSet, FewShot
from ..method.recipe import LITERAL
from .base import Baseline, Fitted
from .optimise import leaf, minimise

_START = "a photo of a"
_RATE = 2e-3
_COOP_BATCH = 32
_COCOOP_EPOCHS = 10  # one image a step, as the reference code
_PREDICT_TEXTS = 4096  # texts encoded at once for images with contexts of their own


def coop(data: FewShot, seed: int) -> Fitted:
    """CoOp (Zhou et al. 2022): one context for all classes, new ones too. SGD 0.002, cosine."""
    tower = _tower(data)
    context = leaf(tower.start(_START))

    def loss(rows: Tensor) -> Tensor:
        texts = tower(data.classes.names, context)
        return F.cross_entropy(data.scale * data.x[rows] @ texts.T, data.y[rows])

    optimiser = torch.optim.SGD([context], lr=_RATE, momentum=0.9, weight_decay=5e-4)
    epochs = LITERAL.epochs_for(data.shots, len(data.w))  # CoOp's rule
    minimise([context], loss, len(data.x), optimiser=optimiser, epochs=epochs,
             batch_size=_COOP_BATCH, seed=seed)  # fmt: skip
    final = context.detach()

    @torch.no_grad()
    def logits(x: Tensor, classes: ClassSet) -> Tensor:
        return data.scale * x @ tower(classes.names, final).T

    return Fitted(logits, final.numel())


def cocoop(data: FewShot, seed: int) -> Fitted:
    """CoCoOp (Zhou et al. 2022b): the context moves with the image, by a two-layer network."""
    tower = _tower(data)
    context = leaf(tower.start(_START))
    d, e = data.x.shape[1], context.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = torch.nn.Linear(d, max(1, d // 16)), torch.nn.Linear(max(1, d // 16), e)
    network = [leaf(p.to(data.x.device)) for layer in layers for p in layer.parameters()]

    def contexts(x: Tensor) -> Tensor:
        """Return one context an image: x (b, d) to (b, m, e)."""
        hidden = F.relu(F.linear(x, network[0], network[1]))
        return context + F.linear(hidden, network[2], network[3])[:, None]

    def score(x: Tensor, names: tuple[str, ...]) -> Tensor:
        return data.scale * torch.einsum("bd,bcd->bc", x, tower(names, contexts(x)))

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(score(data.x[rows], data.classes.names), data.y[rows])

    parameters = [context, *network]
    optimiser = torch.optim.SGD(parameters, lr=_RATE, momentum=0.9, weight_decay=5e-4)
    minimise(parameters, loss, len(data.x), optimiser=optimiser, epochs=_COCOOP_EPOCHS,
             batch_size=1, seed=seed)  # fmt: skip

    @torch.no_grad()
    def logits(x: Tensor, classes: ClassSet) -> Tensor:
        rows = max(1, _PREDICT_TEXTS // len(classes))
        return torch.cat([score(part, classes.names) for part in x.split(rows)])

    return Fitted(logits, sum(parameter.numel() for parameter in parameters))


def _tower(data: FewShot) -> PromptTower:
    if data.tower is None:
        raise UserError(
            "It learns words before the class names, and the text tower is closed: these are cached"
            " features, or the encoder is not an open_clip model with a causal tower."
        )
    return data.tower


_FIT: list[tuple[str, Callable[[FewShot, int], Fitted], str]] = [
    ("CoOp", coop, "Zhou et al. 2022, IJCV"),
    ("CoCoOp", cocoop, "Zhou et al. 2022, CVPR"),
]
BASELINES = [
    Baseline(name.lower(), name, fit, source, "on cached features, without augmentation")
    for name, fit, source in _FIT
]

"""CLIP-Adapter and TaskRes: a small change of the image or of the text features.

b images, c classes, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method.choose import choose
from ..method.problem import ClassSet, FewShot
from .base import Baseline, Fitted, per_class
from .linear_probe import cosine_logits
from .optimise import leaf, minimise

_CLIP_ADAPTER_EPOCHS, _CLIP_ADAPTER_RATIO = 50, 0.2
_CLIP_ADAPTER_RATIOS = (0.2, 0.4, 0.6, 0.8)
_TASKRES_SCALE = 0.5
_BATCH = 256


def adapt(x: Tensor, inner: Tensor, outer: Tensor, ratio: float) -> Tensor:
    """Return ``α·relu(W₂ relu(W₁ x)) + (1 − α)·x``, unit length (Gao et al. 2024, Eqs. 3 and 5)."""
    bottleneck = F.relu(F.relu(x @ inner.T) @ outer.T)
    return F.normalize(ratio * bottleneck + (1 - ratio) * x, dim=-1)


def _clip_adapter(data: FewShot, seed: int, ratio: float) -> tuple[Tensor, Tensor]:
    d = data.w.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = torch.nn.Linear(d, d // 4, bias=False), torch.nn.Linear(d // 4, d, bias=False)
    inner, outer = (leaf(layer.weight.to(data.x.device)) for layer in layers)

    def loss(rows: Tensor) -> Tensor:
        x = adapt(data.x[rows], inner, outer, ratio)
        return F.cross_entropy(data.scale * x @ data.w.T, data.y[rows])

    optimiser = torch.optim.AdamW([inner, outer], lr=1e-3)
    minimise([inner, outer], loss, len(data.x), optimiser=optimiser, epochs=_CLIP_ADAPTER_EPOCHS,
             batch_size=_BATCH, seed=seed)  # fmt: skip
    return inner.detach(), outer.detach()


def clip_adapter(data: FewShot, seed: int) -> Fitted:
    """CLIP-Adapter on the image side; it changes new classes too. α by validation, else 0.2."""
    ratios = _CLIP_ADAPTER_RATIOS if len(data.val_y) else (_CLIP_ADAPTER_RATIO,)
    trained = {ratio: _clip_adapter(data, seed, ratio) for ratio in ratios}
    ratio, score = choose(
        ratios,
        lambda r: data.scale * adapt(data.val_x, *trained[r], r) @ data.w.T,
        data.val_y,
        _CLIP_ADAPTER_RATIO,
    )
    inner, outer = trained[ratio]

    def logits(x: Tensor, classes: ClassSet) -> Tensor:
        return data.scale * adapt(x, inner, outer, ratio) @ classes.template.T

    chosen = {"ratio": ratio, "validation accuracy": score}
    return Fitted(logits, inner.numel() + outer.numel(), chosen)


def taskres(data: FewShot, seed: int) -> Fitted:
    """TaskRes (Yu et al. 2023, Eq. 4): ``w + α·r`` with a free residual r (c, d), α = 0.5.

    Optimiser of the reference code: Adam, 2e-3 (2e-4 for ImageNet), 200 epochs from 8 shots on,
    100 below.
    """
    residual = leaf(torch.zeros_like(data.w))

    def loss(rows: Tensor) -> Tensor:
        prototypes = data.w + _TASKRES_SCALE * residual
        return F.cross_entropy(cosine_logits(data.x[rows], prototypes, data.scale), data.y[rows])

    optimiser = torch.optim.Adam([residual], lr=2e-4 if len(data.w) >= 500 else 2e-3)
    minimise([residual], loss, len(data.x), optimiser=optimiser,
             epochs=200 if data.shots >= 8 else 100, batch_size=_BATCH, seed=seed)  # fmt: skip
    final = data.w + _TASKRES_SCALE * residual.detach()
    return per_class(data, lambda x: cosine_logits(x, final, data.scale), final.numel())


BASELINES = [
    Baseline("clip-adapter", "CLIP-Adapter", clip_adapter, "Gao et al. 2024"),
    Baseline("taskres", "TaskRes", taskres, "Yu et al. 2023"),
]

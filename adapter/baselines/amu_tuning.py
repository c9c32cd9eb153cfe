"""AMU-Tuning (Tang et al. 2024): a second linear classifier, heard more where CLIP is unsure.

Of its three parts two are here: the classifier that starts at class means and is trained through
two losses, and the fusion by uncertainty. Left out is the auxiliary encoder (MoCo v3), since only
CLIP's own features are cached, and so are augmented images. b images, n images, c classes, d width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method.choose import choose
from ..method.problem import FewShot
from .base import Baseline, Fitted, per_class
from .optimise import leaf, minimise

# of TJU-sjyj/AMU-Tuning: its default.yaml, its example command and, for the power, its arguments
_ALPHA, _LAMBDA, _POWER, _KURTOSIS = 0.5, 0.35, 0.4, 250.0
_EPOCHS, _BATCH, _LR, _DECAY, _EPS = 50, 8, 1e-3, 0.01, 1e-4
_ALPHAS = tuple(0.5 * 2**i for i in range(-2, 6))
_STEPS, _WEIGHTS_MOVED = 12_500, 2e9  # beyond either, images are taken in larger batches
_SMALL = 1e-6


def standardised(logits: Tensor) -> Tensor:
    """Return logits (b, c) less their mean, over their deviation, for each image."""
    spread = logits.std(1, keepdim=True).clamp_min(_SMALL)
    return (logits - logits.mean(1, keepdim=True)) / spread


def uncertainty(logits: Tensor, power: float = _POWER) -> Tensor:
    """Return (b, 1): low for images whose zero-shot probabilities stand out.

    ``(κ / 250)^−ρ`` with the kurtosis κ of the probabilities of all classes.
    """
    kurtosis = standardised(logits.softmax(1)).pow(4).mean(1, keepdim=True)
    return (kurtosis.clamp_min(_SMALL) / _KURTOSIS) ** -power


def amu(data: FewShot, seed: int) -> Fitted:
    """Trained with α = 0.5; α of the answer by validation images, else the same."""
    head = _head(data, seed)

    def logits(x: Tensor, alpha: float) -> Tensor:
        start = data.scale * x @ data.w.T
        return start + alpha * uncertainty(start) * standardised(x @ head.T)

    alpha, score = choose(_ALPHAS, lambda a: logits(data.val_x, a), data.val_y, _ALPHA)
    chosen = {"alpha": alpha, "validation accuracy": score}
    return per_class(data, lambda x: logits(x, alpha), head.numel(), chosen)


def _head(data: FewShot, seed: int) -> Tensor:
    """Train the classifier (c, d) from class means, by its own loss and that of the sum."""
    c = len(data.w)
    counts = torch.bincount(data.y, minlength=c).clamp_min(1)[:, None]
    head = leaf(data.x.new_zeros(data.w.shape).index_add_(0, data.y, data.x) / counts)
    start = data.scale * data.x @ data.w.T
    weight = _ALPHA * uncertainty(start)

    def loss(rows: Tensor) -> Tensor:
        own, y = standardised(data.x[rows] @ head.T), data.y[rows]
        both = F.cross_entropy(start[rows] + weight[rows] * own, y)
        return _LAMBDA * both + (1 - _LAMBDA) * F.cross_entropy(own, y)

    optimiser = torch.optim.AdamW([head], lr=_LR, weight_decay=_DECAY, eps=_EPS)
    steps = min(_STEPS, _WEIGHTS_MOVED / head.numel())
    batch = max(_BATCH, math.ceil(len(data.x) * _EPOCHS / steps))
    minimise([head], loss, len(data.x), optimiser=optimiser, epochs=_EPOCHS, batch_size=batch,
             seed=seed)  # fmt: skip
    return head.detach()


BASELINES = [
    Baseline("amu", "AMU-Tuning", amu, "Tang et al. 2024", "CLIP's own features as auxiliary ones")
]

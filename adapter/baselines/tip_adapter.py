"""Tip-Adapter and Tip-Adapter-F (Zhang et al. 2022): a key-value cache of the training images.

n images, c classes, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method.choose import choose, product
from ..method.problem import FewShot
from .base import Baseline, Fitted, per_class
from .optimise import leaf, minimise

# the paper's α and β where nothing can be validated; the search range is that of its code
_ALPHA, _BETA = 1.0, 5.5
_ALPHAS = torch.linspace(0.1, 3.0, 12).tolist()
_BETAS = torch.linspace(0.1, 7.0, 12).tolist()
_EPOCHS, _BATCH, _LR = 20, 256, 1e-3


def cache_logits(x: Tensor, keys: Tensor, y: Tensor, classes: int, beta: float) -> Tensor:
    """Return ``exp(−β(1 − x·keys)) · one-hot`` (b, c), Eq. 4: votes of similar training images."""
    affinity = torch.exp(beta * (x @ keys.T - 1.0))  # (b, n)
    return x.new_zeros(len(x), classes).index_add(1, y, affinity)


def _with_cache(data: FewShot, keys: Tensor, parameters: int) -> Fitted:
    """Choose α and β on validation images and return the predictor."""
    c = len(data.w)
    zero_shot = data.scale * data.val_x @ data.w.T
    votes = {b: cache_logits(data.val_x, keys, data.y, c, b) for b in _BETAS} if len(
        data.val_y
    ) else {}  # fmt: skip
    (alpha, beta), score = choose(
        product(_ALPHAS, _BETAS),
        lambda pair: zero_shot + pair[0] * votes[min(_BETAS, key=lambda b: abs(b - pair[1]))],
        data.val_y,
        (_ALPHA, _BETA),
    )

    def logits(x: Tensor) -> Tensor:
        return data.scale * x @ data.w.T + alpha * cache_logits(x, keys, data.y, c, beta)

    chosen = {"alpha": alpha, "beta": beta, "validation accuracy": score}
    return per_class(data, logits, parameters, chosen)


def tip_adapter(data: FewShot, seed: int) -> Fitted:
    """Training-free: keys are the training features."""
    return _with_cache(data, data.x, 0)


def tip_adapter_f(data: FewShot, seed: int) -> Fitted:
    """The keys are fine-tuned for 20 epochs. The last epoch is taken.

    The reference code takes the epoch with the best test accuracy; this one never sees test images.
    """
    keys = leaf(data.x)
    c = len(data.w)

    def loss(rows: Tensor) -> Tensor:
        x = data.x[rows]
        logits = data.scale * x @ data.w.T + _ALPHA * cache_logits(x, keys, data.y, c, _BETA)
        return F.cross_entropy(logits, data.y[rows])

    optimiser = torch.optim.AdamW([keys], lr=_LR, eps=1e-4)
    minimise([keys], loss, len(data.x), optimiser=optimiser, epochs=_EPOCHS, batch_size=_BATCH,
             seed=seed)  # fmt: skip
    return _with_cache(data, keys.detach(), keys.numel())


BASELINES = [
    Baseline("Tip-Adapter", tip_adapter, "Zhang et al. 2022", deterministic=True),
    Baseline("Tip-Adapter-F", tip_adapter_f, "Zhang et al. 2022"),
]

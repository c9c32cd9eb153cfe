"""Tip-Adapter and Tip-Adapter-F (Zhang et al. 2022): a key-value cache of the training images.

n images, c classes, d width. α and β are searched up to 50, the range of LP++'s comparison
(FereshteShakeri/FewShot-CLIP-Strong-Baseline), which holds the range that Tip-Adapter's authors set
by hand for each data set: both up to 7 and 3 (ImageNet, Pets, UCF101), 30 (Aircraft), 50 (Flowers).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method.problem import FewShot
from .base import Baseline, Fitted, per_class
from .cache import cache_logits, grid, thinned, votes_of
from .mixture_search import choose_mixture
from .optimise import leaf, minimise

# the paper's α and β where nothing can be validated
_ALPHA, _BETA = 1.0, 5.5
_ALPHAS, _BETAS = grid(50, 200), grid(50, 200)
_AFFINITIES = 2e9  # computed in one search; larger problems get fewer β
_EPOCHS, _BATCH, _LR = 20, 256, 1e-3
# where the keys of Tip-Adapter-F are trained: β as in the code, α as LP++'s comparison tries them
_START_BETA, _START_ALPHAS = 1.0, (1.0, 3.0, 6.0, 10.0)
_SEVERAL_STARTS = 5000  # training images up to which all of these are tried


def _betas(data: FewShot) -> list[float]:
    each = max(1, len(data.x) * len(data.val_x))
    return thinned(_BETAS, max(10, int(_AFFINITIES / each)))


def _with_cache(data: FewShot, keys: Tensor, start: tuple[float, float], parameters: int) -> Fitted:
    """Choose α and β on validation images, else take ``start``, and return the predictor."""
    c = len(data.w)

    def votes(part: slice):
        apart = keys @ data.val_x[part].T - 1.0
        return lambda beta: votes_of(apart, data.y, c, beta)

    beta, alpha, score = choose_mixture(
        _betas(data),
        _ALPHAS,
        data.scale * data.val_x @ data.w.T,
        votes,
        data.val_y,
        (start[1], start[0]),
    )

    def logits(x: Tensor) -> Tensor:
        return data.scale * x @ data.w.T + alpha * cache_logits(x, keys, data.y, c, beta)

    chosen = {"alpha": alpha, "beta": beta, "validation accuracy": score}
    return per_class(data, logits, parameters, chosen)


def tip_adapter(data: FewShot, seed: int) -> Fitted:
    """Training-free: keys are the training features."""
    return _with_cache(data, data.x, (_ALPHA, _BETA), 0)


def tip_adapter_f(data: FewShot, seed: int) -> Fitted:
    """The keys are fine-tuned for 20 epochs.

    The reference code takes the epoch with the best test accuracy; here validation images decide on
    the epoch and on the α of training, and without them the last epoch of the paper's α and β.
    """
    if not len(data.val_y):
        keys = _tuned(data, seed, _ALPHA, _BETA)[0]
        return _with_cache(data, keys, (_ALPHA, _BETA), keys.numel())
    starts = _START_ALPHAS if len(data.x) <= _SEVERAL_STARTS else _START_ALPHAS[:1]
    runs = [(*_tuned(data, seed, alpha, _START_BETA), alpha) for alpha in starts]
    keys, _, alpha = max(runs, key=lambda run: run[1])
    fitted = _with_cache(data, keys, (alpha, _START_BETA), keys.numel())
    fitted.chosen["alpha of training"] = alpha
    return fitted


def _tuned(data: FewShot, seed: int, alpha: float, beta: float) -> tuple[Tensor, float]:
    """Train the keys; return those of the best epoch on validation images, and its accuracy."""
    keys, c = leaf(data.x), len(data.w)
    best: tuple[float, Tensor] = -1.0, keys

    def logits(x: Tensor) -> Tensor:
        return data.scale * x @ data.w.T + alpha * cache_logits(x, keys, data.y, c, beta)

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(logits(data.x[rows]), data.y[rows])

    @torch.no_grad()
    def keep_best(epoch: int) -> None:
        nonlocal best
        hits = sum(
            int((logits(x).argmax(1) == y).sum())
            for x, y in zip(data.val_x.split(_BATCH), data.val_y.split(_BATCH))
        )
        score = 100 * hits / max(1, len(data.val_y))
        if score > best[0] or not len(data.val_y):
            best = score, keys.detach().clone()

    optimiser = torch.optim.AdamW([keys], lr=_LR, eps=1e-4)
    minimise([keys], loss, len(data.x), optimiser=optimiser, epochs=_EPOCHS, batch_size=_BATCH,
             seed=seed, after_epoch=keep_best)  # fmt: skip
    return best[1], best[0]


BASELINES = [
    Baseline("tip-adapter", "Tip-Adapter", tip_adapter, "Zhang et al. 2022", deterministic=True),
    Baseline("tip-adapter-f", "Tip-Adapter-F", tip_adapter_f, "Zhang et al. 2022"),
]

"""APE and APE-T (Zhu et al. 2023): a cache on the dimensions that tell classes apart.

b images, n training images, c classes, d width, k dimensions kept. The authors set the number of
dimensions, their weights and the ranges of the search by hand for each of eleven data sets; here
validation images choose among these values, and without them the most common ones stand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method.problem import FewShot
from .base import Baseline, Fitted, per_class
from .cache import cache_logits, grid, thinned, votes_of
from .mixture_search import choose_mixture
from .optimise import leaf, minimise

# of yangyangyang127/APE: shares of RN50's 1,024 dimensions, weights of the two criteria
_SHARES = tuple(count / 1024 for count in (400, 500, 700, 800))
_SHARE, _SHARE_TRAINED = 700 / 1024, 800 / 1024
_WEIGHTS, _WEIGHTS_TRAINED = (0.7, 0.3), (0.2, 0.8)
_ALPHA, _BETA, _GAMMA = 2.0, 1.0, 0.1
# the widest of the authors' ranges: α to 10 and β to 20 (Aircraft), β to 30 and γ to 1.5 (EuroSAT)
_ALPHAS, _BETAS = grid(10, 100), thinned(grid(30, 200), 24)
_GAMMAS = tuple(i * 1.5 / 20 for i in range(0, 20, 2))
_AFFINITIES = 2e9  # computed in one search; larger problems get fewer β and γ
_EPOCHS, _BATCH, _RATES, _RATE, _EPS, _DECAY = 30, 256, (1e-3, 1e-4), 1e-3, 1e-3, 0.1
_SMALL = 1e-6


def criterion(
    w: Tensor, x: Tensor, y: Tensor, weights: tuple[float, float], images: bool = True
) -> Tensor:
    """Return for each dimension (d,) how well it tells classes apart (Eqs. 5 and 8).

    Minus the mean product of two members of different classes, plus the variance of the class
    texts. Members of a class are its text and, with ``images``, its training images.

    Args:
        w: (c, d) texts. x: (n, d) images, y: (n,) labels. weights: of both.
    """
    w, x = w.double(), x.double()
    sums, counts = w.clone(), torch.ones(len(w), dtype=w.dtype, device=w.device)
    if images:
        sums.index_add_(0, y, x)
        counts += torch.bincount(y, minlength=len(w))
    pairs = counts.sum().square() - counts.square().sum()
    alike = (sums.sum(0).square() - sums.square().sum(0)) / pairs
    return weights[1] * w.var(0) - weights[0] * alike


def strongest(values: Tensor, share: float) -> Tensor:
    """Return the positions of the highest values: this share of them, at least one."""
    return values.topk(max(1, int(share * len(values)))).indices


def divergence(keys: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """Return (n,): how far zero-shot CLIP is from each key's label, in bits (Eq. 12).

    The softmax is over plain cosines, as in the reference code. All but one term of the
    Kullback-Leibler sum vanish.
    """
    own = (keys @ w.T).softmax(1).gather(1, y[:, None])[:, 0]
    return torch.log2((1 + _SMALL) / (own + _SMALL))


@dataclass(frozen=True)
class _Cache:
    """Keys and texts on the chosen dimensions, unit length."""

    rows: Tensor
    keys: Tensor
    y: Tensor
    bits: Tensor

    def reduce(self, x: Tensor) -> Tensor:
        """Return x (b, d) on the chosen dimensions (b, k), unit length."""
        return F.normalize(x[:, self.rows], dim=-1)


def _cache(data: FewShot, share: float) -> _Cache:
    rows = strongest(criterion(data.w, data.x, data.y, _WEIGHTS), share)
    keys, w = (F.normalize(v[:, rows], dim=-1) for v in (data.x, data.w))
    return _Cache(rows, keys, data.y, divergence(keys, w, data.y))


def ape(data: FewShot, seed: int) -> Fitted:
    """Training-free: ``s·x·w_i + α·Σ exp(−β(1 − x'·k')) exp(γ·bits)`` over keys of the class."""
    c = len(data.w)
    settings = _settings(data)
    found: tuple[float, _Cache, float, tuple[float, float], float] | None = None
    for share in _SHARES if len(data.val_y) else (_SHARE,):
        cache = _cache(data, share)
        val_x = cache.reduce(data.val_x)

        def votes(part: slice, cache: _Cache = cache, val_x: Tensor = val_x):
            apart = cache.keys @ val_x[part].T - 1.0
            return lambda s: votes_of(apart, data.y, c, s[0], (s[1] * cache.bits).exp())

        pair, alpha, score = choose_mixture(
            settings, _ALPHAS, data.scale * data.val_x @ data.w.T, votes, data.val_y,
            ((_BETA, _GAMMA), _ALPHA),
        )  # fmt: skip
        if found is None or score > found[0]:
            found = score, cache, share, pair, alpha
    assert found is not None
    score, cache, share, (beta, gamma), alpha = found
    values = (gamma * cache.bits).exp()

    def logits(x: Tensor) -> Tensor:
        votes = cache_logits(cache.reduce(x), cache.keys, data.y, c, beta, values)
        return data.scale * x @ data.w.T + alpha * votes

    chosen = {"alpha": alpha, "beta": beta, "gamma": gamma, "share": share}
    return per_class(data, logits, 0, chosen | {"validation accuracy": score})


def _settings(data: FewShot) -> list[tuple[float, float]]:
    """Return the pairs (β, γ) that are tried: fewer where each costs more."""
    most = max(12, int(_AFFINITIES / max(1, len(data.x) * len(data.val_x))))
    gammas = thinned(list(_GAMMAS), 3 if most < len(_BETAS) * len(_GAMMAS) else len(_GAMMAS))
    betas = thinned(_BETAS, max(4, most // len(gammas)))
    return [(beta, gamma) for beta in betas for gamma in gammas]


def ape_t(data: FewShot, seed: int) -> Fitted:
    """APE-T: one residual a class on the strongest dimensions, for its text and all its keys.

    Besides a weight for each key. Rate and epoch by validation images, then α and β; without them
    the last epoch of the usual rate.
    """
    rates = _RATES if len(data.val_y) else (_RATE,)
    runs = [(*_trained(data, seed, rate), rate) for rate in rates]
    (keys, w, values), _, rate = max(runs, key=lambda run: run[1])
    c = len(data.w)

    def votes(part: slice):
        apart = keys @ data.val_x[part].T - 1.0
        return lambda beta: votes_of(apart, data.y, c, beta, values)

    betas = thinned(_BETAS, max(8, int(_AFFINITIES / max(1, len(data.x) * len(data.val_x)))))
    beta, alpha, score = choose_mixture(
        betas, _ALPHAS, data.scale * data.val_x @ w.T, votes, data.val_y, (_BETA, _ALPHA)
    )

    def logits(x: Tensor) -> Tensor:
        return data.scale * x @ w.T + alpha * cache_logits(x, keys, data.y, c, beta, values)

    trained = c * int(_SHARE_TRAINED * data.w.shape[1]) + len(data.x)
    chosen = {"alpha": alpha, "beta": beta, "lr": rate, "validation accuracy": score}
    return per_class(data, logits, trained, chosen)


def residual_cache(
    data: FewShot, rows: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return keys (n, d) and texts (c, d) with the residual (c, k) of their class added.

    They are not scaled to unit length again, as in the reference code.
    """
    full = torch.zeros_like(data.w).index_copy(1, rows, residual)
    return data.x + full[data.y], data.w + full


def _trained(
    data: FewShot, seed: int, rate: float
) -> tuple[tuple[Tensor, Tensor, Tensor], float]:  # fmt: skip
    """Return keys, texts and values of the best epoch on validation images, and its accuracy."""
    rows = strongest(
        criterion(data.w, data.x, data.y, _WEIGHTS_TRAINED, images=False), _SHARE_TRAINED
    )
    residual = leaf(torch.zeros(len(data.w), len(rows), device=data.x.device))
    values = leaf(torch.ones(len(data.x), device=data.x.device))
    best: tuple[float, Tensor, Tensor] = -1.0, residual, values

    def logits(x: Tensor) -> Tensor:
        keys, w = residual_cache(data, rows, residual)
        votes = cache_logits(x, keys, data.y, len(data.w), _BETA, values)
        return data.scale * x @ w.T + _ALPHA * votes

    @torch.no_grad()
    def keep_best(epoch: int) -> None:
        nonlocal best
        parts = zip(data.val_x.split(_BATCH), data.val_y.split(_BATCH))
        hits = sum(int((logits(x).argmax(1) == y).sum()) for x, y in parts)
        score = 100 * hits / max(1, len(data.val_y))
        if score > best[0] or not len(data.val_y):
            best = score, residual.detach().clone(), values.detach().clone()

    optimiser = torch.optim.AdamW([residual, values], lr=rate, eps=_EPS, weight_decay=_DECAY)
    minimise([residual, values], lambda rows: F.cross_entropy(logits(data.x[rows]), data.y[rows]),
             len(data.x), optimiser=optimiser, epochs=_EPOCHS, batch_size=_BATCH, seed=seed,
             after_epoch=keep_best)  # fmt: skip
    keys, w = residual_cache(data, rows, best[1])
    return (keys, w, best[2]), best[0]


BASELINES = [
    Baseline("ape", "APE", ape, "Zhu et al. 2023, ICCV", deterministic=True),
    Baseline("ape-t", "APE-T", ape_t, "Zhu et al. 2023, ICCV", "trained on cached features"),
]

"""Label-free rules of others, on cached features: what they do with photos and class texts alone.

n images, c classes, d embedding width. Where a paper also tunes the image tower, only its rule
for pseudo-labels and its classifier fit cached features; the table says so.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Rule = Callable[[Tensor, Tensor, float, int], Callable[[Tensor], Tensor]]
# photos (n, d), class texts (c, d) and CLIP's factor, to assignments (n, c) of all photos at once
Transductive = Callable[[Tensor, Tensor, float], Tensor]
_NEIGHBOURS = 3
_RAW_LENGTH = 10.0


def lafter(x: Tensor, t: Tensor, scale: float, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Return a classifier trained on labels of a classifier of texts (LaFTer, Mirza et al. 2023).

    A linear layer learns to tell class texts with noise apart; a copy of it, frozen, labels the
    photos, and the layer goes on learning from those labels. Noise 0.1, label smoothing 0.1, 1,000
    steps on texts and 50 epochs of 50 photos by AdamW at 5e-4, as their code; the last epoch, not
    the best on test images. Not here, since features are cached: learned prompts and norms of the
    image tower, and a strong view of each photo.
    """
    generator = torch.Generator().manual_seed(seed)
    c, d = t.shape
    weight = ((torch.rand(c, d, generator=generator) * 2 - 1) / d**0.5).requires_grad_(True)
    labels = torch.arange(c)
    optimiser = torch.optim.AdamW([weight], lr=5e-4, weight_decay=0.01)

    def step(images: Tensor, target: Tensor) -> None:
        loss = F.cross_entropy(images @ weight.T, target, label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    for _ in range(1000):
        step(t + torch.randn(t.shape, generator=generator) * 0.1, labels)
    target = (x @ weight.detach().T).argmax(1)
    optimiser = torch.optim.AdamW([weight], lr=5e-4, weight_decay=0.01)
    for _ in range(50):
        for rows in torch.randperm(len(x), generator=generator).split(50):
            step(_RAW_LENGTH * x[rows], target[rows])  # the tower's own features are about as long
    final = weight.detach()
    return lambda images: _RAW_LENGTH * images @ final.T


def nola(x: Tensor, t: Tensor, scale: float, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Return a classifier trained on the surest photos of each class (NoLA, Imam et al. 2024).

    The k photos that class texts are surest of get their class as label, and a linear layer is
    trained on them (label smoothing 0.1). Not here: DINO's features, and prompts in the tower.
    """
    k = max(1, min(16, round(0.5 * len(x) / len(t))))
    sure = (scale * x @ t.T).softmax(1).topk(min(k, len(x)), dim=0).indices  # (k, c)
    rows, labels = sure.T.reshape(-1), torch.arange(len(t)).repeat_interleave(sure.shape[0])
    weight = t.clone().requires_grad_(True)
    optimiser = torch.optim.AdamW([weight], lr=1e-3)
    for _ in range(100):
        loss = F.cross_entropy(scale * x[rows] @ F.normalize(weight, dim=-1).T, labels,
                               label_smoothing=0.1)  # fmt: skip
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    final = F.normalize(weight.detach(), dim=-1)
    return lambda images: scale * images @ final.T


def transclip(x: Tensor, t: Tensor, scale: float, iterations: int = 10) -> Tensor:
    """Return assignments (n, c) of the photos themselves (TransCLIP, Zanella et al. 2024).

    Block updates of ``z ∝ ŷ · exp(log-likelihood + neighbours)``, means of unit length and one
    diagonal covariance; λ = 1 and three neighbours, as their zero-shot setting. It labels the
    photos that it is given, so it is transductive: it sees the test photos.
    """
    n, d = x.shape
    prior = (scale * x @ t.T).log_softmax(1)
    z = prior.exp()
    top = z.topk(min(8, n), dim=0)
    chosen = torch.zeros_like(z).scatter_(0, top.indices, top.values)
    mean = F.normalize(chosen.T @ x, dim=-1)
    variance = x.new_full((d,), 1 / d)
    near = _neighbours(x)
    for step in range(iterations + 1):
        inverse = 1 / variance
        likelihood = -0.5 * ((x.square() @ inverse)[:, None] - 2 * (x * inverse) @ mean.T
                             + mean.square() @ inverse)  # fmt: skip
        for _ in range(5):
            pull = (50 / (2 * _NEIGHBOURS)) * (near.t() @ z + near @ z)
            z = (prior + (likelihood + pull) / 50).softmax(1)
        if step == iterations:
            break
        mass = z.sum(0)
        mean = F.normalize((z.T @ x) / mass.clamp_min(1e-12)[:, None], dim=-1)
        moments = (z.sum(1)[:, None] * x.square()).sum(0) - 2 * ((z.T @ x) * mean).sum(0)
        variance = ((moments + (mass[:, None] * mean.square()).sum(0)) / n).clamp_min(1e-9)
    return z


def _neighbours(x: Tensor) -> Tensor:
    """Return the sparse affinities (n, n) of each photo to its three nearest others."""
    k = min(_NEIGHBOURS, len(x) - 1)
    values, columns = [], []
    for rows in torch.arange(len(x)).split(2048):
        likeness = x[rows] @ x.T
        likeness[torch.arange(len(rows)), rows] = -2
        top = likeness.topk(k, dim=1)
        values.append(top.values)
        columns.append(top.indices)
    where = torch.stack([torch.arange(len(x)).repeat_interleave(k), torch.cat(columns).flatten()])
    return torch.sparse_coo_tensor(
        where, torch.cat(values).flatten(), (len(x), len(x)), check_invariants=False
    ).coalesce()


RULES: dict[str, Rule] = {"LaFTer's rule": lafter, "NoLA's rule": nola}
TRANSDUCTIVE: dict[str, Transductive] = {"TransCLIP": transclip}

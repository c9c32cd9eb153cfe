"""Linear classifiers on frozen features that start at the text: ZS-LP, CLAP, cross-modal.

n images, c classes, d width; w the text features, W (c, d) the trained prototypes. Those of ZS-LP
and CLAP start at the text vectors as the encoder gives them, about ten times as long as unit
vectors: a step turns them a hundredth as far, and the penalty on their way is a hundred times as
strong.
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

# ZS-LP and CLAP as in their reference implementation (jusiro/CLAP, SGD_lr1e-1_B256_ep300)
_EPOCHS, _BATCH, _LR = 300, 256, 0.1
_WARM_UP = 1e-4  # share of the rate in the first epoch
_CROSS_MODAL_STEPS, _CROSS_MODAL_BATCH, _CROSS_MODAL_RATES = 1000, 32, (1e-3, 1e-4)


def cosine_logits(x: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """Return scaled cosines (b, c) for unit x (b, d) and prototypes (c, d)."""
    return scale * x @ F.normalize(prototypes, dim=-1).T


def clap_multipliers(data: FewShot) -> Tensor:
    """Return λ_c (c,): zero-shot CLIP's mean probability of the true class over its shots.

    Classes that CLIP knows well are held close to their text (Eq. 8 and section 4.3).
    """
    probability = (data.scale * data.x @ data.w.T).softmax(-1)
    own = probability[torch.arange(len(data.y), device=data.y.device), data.y]
    c = len(data.w)
    total = own.new_zeros(c).index_add_(0, data.y, own)
    return total / torch.bincount(data.y, minlength=c).clamp_min(1)


def penalty(prototypes: Tensor, w: Tensor, multipliers: Tensor) -> Tensor:
    """Return the class mean of ``λ_c ‖W_c − w_c‖²``."""
    return (multipliers * (prototypes - w).square().sum(-1)).mean()


def by_epoch(epoch: int, epochs: int, step: int, steps: int) -> float:
    """Return the share of the rate: one epoch of next to nothing, then a cosine by epoch."""
    return _WARM_UP if epoch == 0 else 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs))


def _probe(data: FewShot, seed: int, multipliers: Tensor | None) -> Fitted:
    start = data.raw_w
    prototypes = leaf(start)

    def loss(rows: Tensor) -> Tensor:
        value = F.cross_entropy(cosine_logits(data.x[rows], prototypes, data.scale), data.y[rows])
        if multipliers is not None:
            value = value + penalty(prototypes, start, multipliers)
        return value

    optimiser = torch.optim.SGD([prototypes], lr=_LR, momentum=0.9)
    minimise([prototypes], loss, len(data.x), optimiser=optimiser, epochs=_EPOCHS,
             batch_size=_BATCH, seed=seed, rate=by_epoch, whole_batches=True)  # fmt: skip
    final = prototypes.detach()
    return per_class(data, lambda x: cosine_logits(x, final, data.scale), final.numel())


def linear_probe(data: FewShot, seed: int) -> Fitted:
    """Linear probe that starts at the text features (ZS-LP of Silva-Rodríguez et al. 2024)."""
    return _probe(data, seed, None)


def clap(data: FewShot, seed: int) -> Fitted:
    """Class-adaptive linear probing: the same with a penalty by class. Nothing to tune."""
    return _probe(data, seed, clap_multipliers(data))


def cross_modal(data: FewShot, seed: int) -> Fitted:
    """Cross-modal linear probe: the text of a class is one more training example of it.

    Lin et al. 2023: half of every batch are images, half are texts; the head starts at the text
    and is not normalised. The learning rate and the step to stop at come from validation; without
    it the lower rate is trained to the end.
    """
    n, c = data.x.shape[0], len(data.w)
    runs: list[tuple[float, int, Tensor]] = []
    for rate in _CROSS_MODAL_RATES:
        generator = torch.Generator().manual_seed(seed)
        weight = leaf(data.w)
        optimiser = torch.optim.AdamW([weight], lr=rate, weight_decay=0.01)
        for step in range(_CROSS_MODAL_STEPS):
            images = torch.randint(n, (_CROSS_MODAL_BATCH,), generator=generator).to(data.x.device)
            texts = torch.randint(c, (_CROSS_MODAL_BATCH,), generator=generator).to(data.x.device)
            x, y = torch.cat([data.x[images], data.w[texts]]), torch.cat([data.y[images], texts])
            loss = F.cross_entropy(data.scale * x @ weight.T, y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if (step + 1) % 100 == 0:
                runs.append((rate, step + 1, weight.detach().clone()))
    (rate, step, final), score = choose(
        runs, lambda run: data.scale * data.val_x @ run[2].T, data.val_y, runs[-1]
    )
    chosen = {"lr": rate, "steps": step, "validation accuracy": score}
    return per_class(data, lambda x: data.scale * x @ final.T, final.numel(), chosen)


BASELINES = [
    Baseline("linear-probe", "linear probe", linear_probe, "Silva-Rodríguez et al. 2024, ZS-LP"),
    Baseline("clap", "CLAP", clap, "Silva-Rodríguez et al. 2024"),
    Baseline("cross-modal", "cross-modal probe", cross_modal, "Lin et al. 2023"),
]

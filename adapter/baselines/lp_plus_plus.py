"""LP++ (Huang et al. 2024): visual prototypes plus text with a learned weight a class.

n images, c classes, d width; F (n, d) features, t (c, d) text.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method.choose import choose
from ..method.problem import FewShot
from .base import Baseline, Fitted, per_class

_STEPS, _ALPHA_EVERY = 300, 10


def step_sizes(x: Tensor, w: Tensor) -> tuple[float, float]:
    """Return the step of W, ``4n / λ_max(FᵀF)``, and of α, ``n / (4·max_i Σ (F t_i)²)``.

    Both follow from Lipschitz constants (Propositions 1 and 2), as in the reference code.
    """
    n = len(x)
    largest = torch.linalg.eigvalsh((x.T @ x).double())[-1]
    text = (x @ w.T).square().sum(0).max()
    return float(4 * n / largest), float(n / (4 * text))


def start(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return W₀ (c, d), the sum of each class's features, and α₀ (c,).

    α₀ is 250 times the mean cosine of images with their own class's text, the same for all.
    """
    c = len(w)
    sums = x.new_zeros(c, x.shape[1]).index_add_(0, y, x)
    own = (x * w[y]).sum(-1)
    per = own.new_zeros(c).index_add_(0, y, own) / torch.bincount(y, minlength=c).clamp_min(1)
    return sums, torch.full_like(per, 250.0 * float(per.mean()))


def lp_plus_plus(data: FewShot, seed: int) -> Fitted:
    """Block coordinate descent with full batches; the best step on validation, else the last."""
    rate, rate_alpha = step_sizes(data.x, data.w)
    weight, alpha = (value.requires_grad_() for value in start(data.x, data.y, data.w))
    bias = torch.zeros_like(alpha).requires_grad_()
    optimiser = torch.optim.SGD([weight, bias], lr=rate, momentum=0.9)
    text, kept = data.x @ data.w.T, []
    for step in range(_STEPS):
        logits = data.x @ weight.T + bias + alpha * text
        loss = F.cross_entropy(logits, data.y)
        optimiser.zero_grad(set_to_none=True)
        alpha.grad = None
        loss.backward()
        optimiser.step()
        if (step + 1) % _ALPHA_EVERY == 0:
            assert alpha.grad is not None
            with torch.no_grad():
                alpha -= rate_alpha * alpha.grad
            kept.append((step + 1, *(v.detach().clone() for v in (weight, bias, alpha))))

    def apply(x: Tensor, state: tuple[int, Tensor, Tensor, Tensor]) -> Tensor:
        _, weight, bias, alpha = state
        return x @ weight.T + bias + alpha * (x @ data.w.T)

    best, score = choose(kept, lambda state: apply(data.val_x, state), data.val_y, kept[-1])
    parameters = weight.numel() + bias.numel() + alpha.numel()
    chosen = {"steps": best[0], "validation accuracy": score}
    return per_class(data, lambda x: apply(x, best), parameters, chosen)


BASELINES = [Baseline("lp++", "LP++", lp_plus_plus, "Huang et al. 2024, LP++", deterministic=True)]

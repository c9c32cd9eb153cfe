"""ProLIP (Fahes et al. 2024): the last projection of the image tower is trained, and nothing else.

n images, v views of an image, e width of the tower, d width of the joint space, c classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.errors import UserError
from ..method.problem import ClassSet, FewShot
from .base import Baseline, Fitted
from .optimise import leaf

# of the reference code without validation (astra-vision/ProLIP, base_to_new_VITB16.yaml)
_STEPS, _RATE, _EPS = 300, 1e-5, 1e-4


def prolip(data: FewShot, seed: int) -> Fitted:
    """Train W (e, d) from W₀ by cross-entropy + λ‖W − W₀‖², λ = 1 / shots (their Eq. 3).

    Adam at 1e-5 with ε = 1e-4, 300 steps of a cosine, each on all images at once, one view of each
    where views are cached. New classes are told apart by the same W.

    Raises:
        UserError: the features before the projection are not here.
    """
    if data.before is None or data.projection is None:
        raise UserError("ProLIP needs the features before CLIP's last projection, from a bank.")
    start = data.projection
    weight = leaf(start)
    optimiser = torch.optim.Adam([weight], lr=_RATE, eps=_EPS)
    views = data.before_views
    finite = torch.ones((), dtype=torch.bool, device=weight.device)
    for step in range(_STEPS):
        optimiser.param_groups[0]["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * step / _STEPS))
        z = data.before if views is None else views[:, step % views.shape[1]]
        value = loss(weight, start, z, data.y, data.w, data.scale, 1.0 / data.shots)
        finite &= value.detach().isfinite()
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
    if not finite:
        raise UserError("The loss of ProLIP is not finite.")
    final = weight.detach()

    def logits(z: Tensor, classes: ClassSet) -> Tensor:
        return data.scale * F.normalize(z @ final, dim=-1) @ classes.template.T

    return Fitted(logits, final.numel(), {"lambda": 1.0 / data.shots}, reads="before")


def loss(
    weight: Tensor, start: Tensor, z: Tensor, y: Tensor, w: Tensor, scale: float, penalty: float
) -> Tensor:
    """Return cross-entropy of cosines of z W (n, d) with w (c, d), plus the way W has gone."""
    logits = scale * F.normalize(z @ weight, dim=-1) @ w.T
    return F.cross_entropy(logits, y) + penalty * (weight - start).square().sum()


BASELINES = [
    Baseline(
        "prolip",
        "ProLIP",
        prolip,
        "Fahes et al. 2024",
        "trains the last projection of the image tower, on features before it",
        deterministic=True,
        before=True,
    )
]

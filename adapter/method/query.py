"""The AAPE as the query: a linear generator whose distillation (Eq. 2) has a closed form.

As in retrieval, ``h(x)`` itself is compared with the texts of the classes. A class without images
gains where the images of other classes show how images and texts lie apart.

b images to classify, n training images, c classes, d embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Query:
    """``h(x) = (x − x̄) A + t̄``, compared with class texts after t̄ is taken from both.

    Attributes:
        matrix: A (d, d); the identity would compare images as they are.
        mean_image: x̄ (d,) of the training images. mean_text: t̄ (d,) of the trained classes.
    """

    matrix: Tensor
    mean_image: Tensor
    mean_text: Tensor

    def __call__(self, x: Tensor, w: Tensor) -> Tensor:
        """Return ``cos(h(x) − t̄, w_i − t̄)`` (b, c) for x (b, d) and class texts w (c, d)."""
        h = F.normalize((x - self.mean_image) @ self.matrix, dim=-1)
        return h @ F.normalize(w - self.mean_text, dim=-1).T


def fit_query(x: Tensor, target: Tensor, w: Tensor, penalty: float) -> Query:
    """Minimise ``Σ‖(x − x̄) A − (p^a − p̄^a)‖² + μ‖A − I‖²``: Eq. 2 for a linear ``h``, by ridge.

    The penalty pulls towards the identity: what the images do not decide stays as CLIP has it.

    Args:
        x: (n, d) training images. target: (n, d), the p^a that each is distilled from.
        w: (c, d) texts of the trained classes.
        penalty: μ in units of the mean squared norm of ``x − x̄``.
    """
    mean = x.mean(0)
    centred = (x - mean).double()
    missing = (target - target.mean(0)).double() - centred
    n, d = centred.shape
    mu = penalty * centred.square().sum(1).mean().clamp_min(1e-12)
    eye = torch.eye(min(n, d), dtype=centred.dtype, device=x.device)
    if n < d:  # the same solution from the smaller of the two systems
        change = centred.T @ torch.linalg.solve(centred @ centred.T + mu * eye, missing)
    else:
        change = torch.linalg.solve(centred.T @ centred + mu * eye, centred.T @ missing)
    matrix = change + torch.eye(d, dtype=centred.dtype, device=x.device)
    return Query(matrix.float(), mean, w.mean(0))

"""The image tower of a CLIP without its last linear map, as an encoder of its own.

b images in a batch, e width of the tower, d width of the joint space. A feature x (d,) is
``unit(z @ projection)`` with z (e,) from here. Rows of z are not scaled: their lengths count where
the projection is trained (ProLIP, Fahes et al. 2024). They are cached like any other feature, under
a fingerprint of their own.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .base import unit

if TYPE_CHECKING:
    from .clip import ClipEncoder


class BeforeProjection:
    """What :func:`~aape.pipeline.embed.images.image_features` needs of an encoder, for z (b, e)."""

    def __init__(self, encoder: ClipEncoder, visual: Any) -> None:
        self.id, self.precision, self.device = encoder.id, encoder.precision, encoder.device
        self.fingerprint = f"{encoder.fingerprint}/before-projection"
        self.transform, self.augment = encoder.transform, encoder.augment
        self.preprocessing = encoder.preprocessing
        self.projection = visual.proj.detach().float().cpu().numpy()
        """(e, d)."""
        self.dim = int(self.projection.shape[0])
        self._fast = encoder.fast
        # the same weights, with one of them taken away in the copy alone
        self._tower = copy.copy(visual)
        self._tower._parameters = {**visual._parameters, "proj": None}

    @torch.inference_mode()
    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode one batch: (b, 3, h, w) to (b, e), float32."""
        with self._fast():
            found = self._tower(pixels.to(self.device))
        pooled = found[0] if isinstance(found, tuple) else found
        return pooled.float()

    @torch.inference_mode()
    def features(self, z: np.ndarray) -> np.ndarray:
        """Return the encoder's features (…, d), of unit length, of z (…, e): no second pass."""
        rows = torch.from_numpy(z.reshape(-1, z.shape[-1])).to(self.device)
        projection = torch.from_numpy(self.projection).to(self.device)
        with self._fast():
            x = unit(rows @ projection)
        return x.float().cpu().numpy().reshape(*z.shape[:-1], -1)

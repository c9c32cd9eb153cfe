"""How the two towers of ``lite`` come to share a space: closed form, from class names alone.

The rows of an ImageNet classifier are image-side prototypes of 1,000 classes whose names we know.
Ridge regression from the text embeddings of the names to the rows carries any text to the image
side (the idea of DeViSE and of ConSE, without training images).

c classes (1,000), f image feature width (1280), e text embedding width (384), d joint width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .base import unit

VERSION = 1  # part of the encoder's fingerprint: raise it with every change of the fit
WIDTH = 512
RIDGE = 1.0
LOGIT_SCALE = 20.0


@dataclass(frozen=True)
class Alignment:
    """Two affine maps into the joint space: text (e, d) and image (f, d), each with its mean."""

    text_mean: torch.Tensor
    text_map: torch.Tensor
    image_mean: torch.Tensor
    image_map: torch.Tensor

    def text(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Map (n, e) to (n, d), unit length."""
        return unit((embeddings - self.text_mean) @ self.text_map)

    def image(self, pooled: torch.Tensor) -> torch.Tensor:
        """Map (b, f) to (b, d), unit length."""
        return unit((pooled - self.image_mean) @ self.image_map)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the maps by name, for a file."""
        return {name: tensor.contiguous() for name, tensor in self.__dict__.items()}

    def to(self, device: torch.device) -> Alignment:
        """Return a copy on a device."""
        return Alignment(**{name: tensor.to(device) for name, tensor in self.__dict__.items()})


def fit(names: torch.Tensor, classifier: torch.Tensor) -> Alignment:
    """Fit the alignment.

    Args:
        names: text embeddings of the class names, (c, e), unit length.
        classifier: rows of the classifier, (c, f).
    """
    rows = unit(classifier - classifier.mean(0)).double()
    _, _, directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    # singular vectors have no sign of their own; give them one that is the same everywhere
    largest = directions.abs().argmax(1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    image_map = directions[:WIDTH].T
    targets = rows @ image_map
    text_mean = names.mean(0).double()
    centred = names.double() - text_mean
    gram = centred.T @ centred + RIDGE * torch.eye(centred.shape[1], dtype=torch.float64)
    text_map = torch.linalg.solve(gram, centred.T @ targets)
    return Alignment(
        text_mean=text_mean.float(),
        text_map=text_map.float(),
        image_mean=torch.zeros(classifier.shape[1]),
        image_map=image_map.float(),
    )

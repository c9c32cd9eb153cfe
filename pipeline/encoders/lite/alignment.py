"""How the two towers of ``lite`` come to share a space: closed form, from class names alone.

The rows of an ImageNet classifier are image-side prototypes of 1,000 classes whose names we know.
Kernel ridge regression from the text embeddings of the names to the rows carries any text to the
image side (the idea of DeViSE, Frome et al. 2013, without training images). The kernel is
``exp(γ (cos - 1))`` on centred embeddings. γ and λ were chosen on held-out ImageNet class names and
the training photos of two data sets, never on test photos; see docs/encoders.md.

c classes (1,000), m fitted texts (c names in each phrasing), f image feature width (1280),
e text embedding width (384), d joint width (512).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...store import finished, write_tensors
from ..base import unit

VERSION = 2  # part of the encoder's fingerprint: raise it with every change of the fit
WIDTH = 512
PHRASINGS = ("{}", "a {}", "a photo of a {}.")
RIDGE = 0.3
GAMMA = 1.0
LOGIT_SCALE = 20.0


@dataclass(frozen=True)
class Alignment:
    """Maps of both sides into the joint space."""

    text_mean: torch.Tensor
    """(e,)"""
    anchors: torch.Tensor
    """The fitted texts, centred and of unit length, (m, e)."""
    weights: torch.Tensor
    """What each anchor contributes, (m, d)."""
    image_map: torch.Tensor
    """(f, d), orthonormal columns."""

    def text(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Map (n, e) to (n, d), unit length."""
        return unit(_kernel(unit(embeddings - self.text_mean), self.anchors) @ self.weights)

    def image(self, pooled: torch.Tensor) -> torch.Tensor:
        """Map (b, f) to (b, d), unit length."""
        return unit(pooled @ self.image_map)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the maps by name, for a file."""
        return {name: tensor.contiguous() for name, tensor in self.__dict__.items()}

    def to(self, device: torch.device) -> Alignment:
        """Return a copy on a device."""
        return Alignment(**{name: tensor.to(device) for name, tensor in self.__dict__.items()})


def _kernel(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.exp(GAMMA * (left @ right.T - 1))


def write(path: Path, alignment: Alignment) -> None:
    """Keep an alignment."""
    write_tensors(path, alignment.tensors(), {})


def read(path: Path) -> Alignment | None:
    """Return a kept alignment, or nothing where the file is not what was written."""
    found = finished(path)
    try:
        return Alignment(**found[0]) if found is not None else None
    except TypeError:  # the tensors of another version
        return None


def fit(phrasings: Sequence[torch.Tensor], classifier: torch.Tensor) -> Alignment:
    """Fit the alignment in double precision.

    Args:
        phrasings: text embeddings of the class names, one (c, e) for each phrasing, unit length.
        classifier: rows of the classifier, (c, f).
    """
    rows = unit(classifier.double() - classifier.double().mean(0)).double()
    _, _, directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    # singular vectors have no sign of their own; give them one that is the same everywhere
    largest = directions.abs().argmax(1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    image_map = directions[:WIDTH].T  # (f, d)
    targets = (rows @ image_map).repeat(len(phrasings), 1)  # (m, d)

    texts = torch.cat(list(phrasings)).double()  # (m, e)
    text_mean = texts.mean(0)
    anchors = torch.nn.functional.normalize(texts - text_mean, dim=1)
    gram = _kernel(anchors, anchors) + RIDGE * torch.eye(len(anchors), dtype=torch.float64)
    weights = torch.cholesky_solve(targets, torch.linalg.cholesky(gram))
    return Alignment(text_mean.float(), anchors.float(), weights.float(), image_map.float())

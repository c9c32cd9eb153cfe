"""CLIPScore and RefCLIPScore (Hessel et al. 2021) on embeddings of any dual encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WEIGHT = 2.5
# what the authors' code puts before every caption, candidate and reference alike
PREFIX = "A photo depicts "


def clip_score(images: np.ndarray, captions: np.ndarray, weight: float = WEIGHT) -> np.ndarray:
    """Return ``weight · max(cos, 0)`` of each pair ``(n,)``; both inputs ``(n, d)``, unit length.

    The figures depend on the encoder: published ones are of OpenAI's ViT-B/32.

    >>> clip_score(np.eye(2), np.array([[0.6, 0.8], [0.0, -1.0]])).tolist()
    [1.5, 0.0]
    """
    return weight * np.maximum(np.einsum("nd,nd->n", images, captions), 0.0)


def ref_clip_score(
    images: np.ndarray, captions: np.ndarray, references: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the harmonic mean ``(n,)`` of CLIPScore and the best cosine with a reference.

    Args:
        images: ``(n, d)``; captions: ``(n, d)``.
        references: for each image its reference captions ``(m, d)``, unit length.

    >>> ref_clip_score(np.eye(2)[:1], np.array([[0.6, 0.8]]), [np.eye(2)]).round(4).tolist()
    [1.0435]
    """
    score = clip_score(images, captions)
    best = np.array([(group @ line).max() for line, group in zip(captions, references)])
    best = np.maximum(best, 0.0)
    total = score + best
    return np.divide(2 * score * best, total, out=np.zeros_like(total), where=total > 0)

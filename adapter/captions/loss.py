"""The loss of images against the captions of a batch, whole or in parts that add up to it.

b  images in a batch   m  captions of an image   t  captions of the batch   d  embedding width
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def false_negatives(p: Tensor, mask: Tensor, near_equal: float) -> tuple[Tensor, Tensor]:
    """Return who is whose: own (b, t) and masked (b, t) over the t real captions of the batch.

    A caption of another image is masked where it equals, or nearly, one of the image's own: then it
    describes the image too, and to push it away would be wrong.
    """
    owner = torch.repeat_interleave(torch.arange(len(p)), mask.sum(1))  # (t,)
    flat = p[mask]  # (t, d)
    own = owner == torch.arange(len(p))[:, None]  # (b, t)
    near = (flat @ flat.T >= near_equal).float()  # (t, t)
    described = (own.float() @ near) > 0  # (b, t): near-equal to some caption of the image
    return own, described & ~own


def caption_loss(h: Tensor, p: Tensor, mask: Tensor, scale: float, near_equal: float) -> Tensor:
    """Return CLIP's symmetric loss of images against all their captions, false negatives masked.

    Image to text: mean log-likelihood of the image's own captions. Text to image: the one image.
    """
    own, masked = false_negatives(p, mask, near_equal)
    logits = scale * F.normalize(h, dim=-1) @ p[mask].T  # (b, t)
    logits = logits.masked_fill(masked, -math.inf)
    to_text = logits.log_softmax(1)[own].reshape(-1)
    weight = (1.0 / mask.sum(1)).repeat_interleave(mask.sum(1))
    to_image = logits.log_softmax(0)[own]
    return -((to_text * weight).sum() / len(h) + to_image.mean()) / 2


def caption_loss_part(
    h: Tensor, p: Tensor, mask: Tensor, scale: float, near_equal: float, part: slice
) -> Tensor:
    """Return the part of :func:`caption_loss` that some images of the batch have in it.

    These are the r rows of their images against all captions, and the s columns of their captions
    against all images: (r, t) and (b, s) instead of (b, t), and (s, t) near-equal captions instead
    of (t, t). The parts of all images add up to the loss.

    Args:
        h, p, mask: of the whole batch. part: the images, in a row.
    """
    counts = mask.sum(1)  # (b,)
    flat = p[mask]  # (t, d)
    owner = torch.repeat_interleave(torch.arange(len(p)), counts)  # (t,)
    images = torch.arange(len(p))
    start = int(counts[: part.start].sum())
    columns = slice(start, start + int(counts[part].sum()))
    own = owner == images[:, None]  # (b, t)
    near = (flat[columns] @ flat.T >= near_equal).float()  # (s, t)
    h = scale * F.normalize(h, dim=-1)
    described = (own[part][:, columns].float() @ near) > 0  # (r, t)
    rows = (h[part] @ flat.T).masked_fill(described & ~own[part], -math.inf)
    to_text = rows.log_softmax(1)[own[part]]
    weight = (1.0 / counts[part]).repeat_interleave(counts[part])
    described = (own.float() @ near.T) > 0  # (b, s)
    table = (h @ flat[columns].T).masked_fill(described & ~own[:, columns], -math.inf)
    to_image = table.log_softmax(0)[own[:, columns]]
    return -((to_text * weight).sum() / len(h) + to_image.sum() / len(flat)) / 2

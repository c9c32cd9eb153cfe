"""New classes, played by seen ones: how far may classes without images leave zero-shot CLIP?

The seen classes are split in two at random. What is trained on either half alone predicts the
training images of the other, whose classes it has never seen. No image of a new class is looked at.

b images, c classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .problem import ClassSet, FewShot
from .query import Query, fit_query

if TYPE_CHECKING:
    from .model import Adapter
    from .recipe import Recipe

_LEAST_CLASSES = 4
_ENOUGH_IMAGES = 2000  # held out in sum; more halvings would change little and cost time


@dataclass(frozen=True)
class Trust:
    """How logits are mixed.

    Attributes:
        head: from zero-shot CLIP (0) to generator and head (1), for classes without images.
        query: then from there to the AAPE as the query (1), for all classes.
        blend: share of p^a in what the query is distilled from; the rest is the class text.
        penalty: of the query's ridge.
    """

    head: float = 1.0
    query: float = 0.0
    blend: float = 1.0
    penalty: float = 1.0

    def mix(self, zero_shot: Tensor, head: Tensor, query: Tensor | None) -> Tensor:
        """Return the logits (b, c); ``query`` may be absent where its weight is zero."""
        out = torch.lerp(zero_shot, head, self.head)
        return out if query is None or not self.query else torch.lerp(out, query, self.query)


def candidates(recipe: Recipe) -> list[Trust]:
    """Return every mixture that the recipe allows; the first needs no held-out classes."""
    q = recipe.query
    forms = [(blend, penalty) for blend in q.blends for penalty in q.penalties]
    return [
        Trust(head, weight, *form)
        for head in recipe.trusts
        for weight in (q.weights if recipe.distils else [0.0])
        for form in (forms if weight else forms[:1])
    ]


def choose_trust(
    data: FewShot,
    recipe: Recipe,
    train: Callable[[FewShot], tuple[Adapter, Tensor]],
    seed: int,
) -> tuple[Trust, dict[str, Any]]:
    """Return the mixture with the least cross-entropy on held-out classes, and how it did.

    Cross-entropy, not accuracy: a few dozen images rank the mixtures too coarsely otherwise.

    Args:
        data: the training problem.
        recipe: ``hold_out`` is the number of random halvings; with 0, or with fewer than four
            classes, the first mixture of :func:`candidates` is returned.
        train: trains without the terms of seen classes; returns the adapter and p^a (n, d) of the
            training images.
        seed: of the halvings.
    """
    mixtures = candidates(recipe)
    c = len(data.w)
    if not recipe.hold_out or c < _LEAST_CLASSES or len(mixtures) == 1:
        return mixtures[0], {}
    generator = torch.Generator().manual_seed(seed)
    loss, hits, images = torch.zeros(len(mixtures)), torch.zeros(len(mixtures)), 0
    for _ in range(recipe.hold_out):
        if images >= _ENOUGH_IMAGES:
            break
        order = torch.randperm(c, generator=generator).to(data.x.device)
        halves = [part.sort().values for part in order.chunk(2)]
        for known, unknown in (halves, halves[::-1]):
            problem, held = restrict(data, known), restrict(data, unknown)
            adapter, target = train(problem)
            for i, logits in enumerate(_mixed(problem, held, adapter, target, mixtures)):
                loss[i] += F.cross_entropy(logits, held.y, reduction="sum").cpu()
                hits[i] += (logits.argmax(1) == held.y).sum().cpu()
            images += len(held.y)
    best = int(loss.argmin())
    accuracy = float(hits[best] / images * 100)
    return mixtures[best], asdict(mixtures[best]) | {"held-out accuracy": accuracy}


@torch.no_grad()
def _mixed(
    known: FewShot, held: FewShot, adapter: Adapter, target: Tensor, mixtures: list[Trust]
) -> Iterator[Tensor]:
    """Yield the logits (b, c') of the held-out images over their own classes, per mixture."""
    zero_shot = adapter.scale * held.x @ held.w.T
    head = adapter.general(held.x, held.w, adapter.embed(held.x))
    forms = {(mixture.blend, mixture.penalty): mixture for mixture in mixtures if mixture.query}
    queries = {
        form: adapter.scale * distil_query(known, target, mixture)(held.x, held.w)
        for form, mixture in forms.items()
    }
    for mixture in mixtures:
        yield mixture.mix(zero_shot, head, queries.get((mixture.blend, mixture.penalty)))


def distil_query(data: FewShot, target: Tensor, trust: Trust) -> Query:
    """Fit the query to p^a (n, d) of the training images, blended with their class text."""
    blended = F.normalize(torch.lerp(data.w[data.y], target, trust.blend), dim=-1)
    return fit_query(data.x, blended, data.w, trust.penalty)


def restrict(data: FewShot, classes: Tensor) -> FewShot:
    """Return the problem over some of its classes, given as ascending positions."""
    rows = torch.isin(data.y, classes).nonzero()[:, 0]
    texts = data.classes
    kept = ClassSet(
        template=texts.template[classes],
        ensemble=texts.ensemble[classes],
        described=texts.described[classes],
        waffle=None if texts.waffle is None else texts.waffle[classes],
        seen=torch.arange(len(classes), device=classes.device),
        names=tuple(texts.names[i] for i in classes.tolist()) if texts.names else (),
    )
    return replace(
        data,
        x=data.x[rows],
        y=torch.searchsorted(classes, data.y[rows]),
        views=None if data.views is None else data.views[rows],
        classes=kept,
        prompts=data.prompts[classes],
        mask=data.mask[classes],
        val_x=data.val_x[:0],
        val_y=data.val_y[:0],
    )

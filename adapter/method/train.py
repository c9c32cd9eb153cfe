"""One draw of shots to a fitted adapter: train, then choose by what has not been seen.

c classes, d embedding width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from .adapter import FittedAdapter, staged_table
from .choose import choose
from .class_text import fit_by_convex_problems
from .descent import Descent
from .discriminant import fit_discriminant, out_of_fold_scores
from .hold_out import Trust, choose_trust, distil_query
from .model import Adapter
from .problem import FewShot
from .recipe import Recipe, controlled
from .seeds import Seeds
from .terms import AdaptedHead, AsQuery, Gaussian, Residual, Term, ZeroShot

_FOLDS = 4


def fit(
    data: FewShot,
    recipe: Recipe,
    seed: int | Seeds,
    *,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> FittedAdapter:
    """Train on one draw of shots.

    Randomness depends on the seeds and the number of the epoch alone, so a run that is killed and
    started again with the same ``checkpoint`` ends with the same bits on a CPU.

    Args:
        data: the training problem.
        recipe: how.
        seed: of initial weights and order; 0 is a seed like any other.
        checkpoint: file to continue from and to write after every epoch; removed at the end.
        on_epoch: called with the record of each epoch.

    Raises:
        UserError: the loss is not finite.
    """
    seeds = seed if isinstance(seed, Seeds) else Seeds(seed, seed)
    start = time.perf_counter()
    if recipe.kind == "convex":
        fitted = fit_by_convex_problems(data, recipe, seeds)
    else:
        fitted = _fit_by_gradient(data, recipe, seeds, checkpoint, on_epoch)
    fitted.seconds = time.perf_counter() - start
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return fitted


def _fit_by_gradient(
    data: FewShot,
    recipe: Recipe,
    seeds: Seeds,
    checkpoint: Path | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> FittedAdapter:
    """Train generator, head and residuals; then choose and add the other terms."""
    trainer = Descent(data, recipe, seeds)
    if checkpoint is not None:
        trainer.restore(checkpoint)
    if trainer.history and on_epoch:
        on_epoch({"resumed_at_epoch": len(trainer.history)})
    while len(trainer.history) < trainer.epochs:
        record = trainer.run_epoch()
        if on_epoch:
            on_epoch(record)
        if checkpoint is not None and len(trainer.history) < trainer.epochs:
            trainer.save(checkpoint)
    adapter = trainer.adapter.eval()
    trust, chosen = _choose_trust(data, recipe, seeds)
    terms: list[Term] = [ZeroShot(adapter.scale), AdaptedHead(adapter)]
    if trust.query:
        terms.append(AsQuery(distil_query(data, trainer.targets(), trust), adapter.scale))
    if adapter.delta is not None:
        terms.append(Residual(data.w, adapter.delta.detach(), adapter.scale))
    fitted = FittedAdapter(recipe, data.w, terms, {}, adapter.scale, history=trainer.history)
    fitted.table = staged_table(terms, trust.head, trust.query, 0.0)
    alpha = 0.0
    if recipe.seen.discriminant:
        gaussian = Gaussian(fit_discriminant(data.x, data.y, len(data.w)))
        alpha, score = _choose_alpha(fitted, data, gaussian)
        terms.append(gaussian)
        fitted.table = staged_table(terms, trust.head, trust.query, alpha)
        chosen |= {"alpha": alpha, "validation accuracy": score}
    fitted.chosen = chosen
    fitted.facts = {"alpha": alpha, "trust": asdict(trust)}
    return fitted


def _choose_trust(data: FewShot, recipe: Recipe, seeds: Seeds) -> tuple[Trust, dict[str, Any]]:
    """Let held-out classes decide how far new ones leave zero-shot CLIP."""
    bare = controlled(recipe, "no-seen-terms")

    def train(problem: FewShot) -> tuple[Adapter, Tensor]:
        trainer = Descent(problem, bare, seeds)
        while len(trainer.history) < trainer.epochs:
            trainer.run_epoch()
        return trainer.adapter, trainer.targets()

    return choose_trust(data, recipe, train, seeds.init)


def _choose_alpha(fitted: FittedAdapter, data: FewShot, gaussian: Gaussian) -> tuple[float, float]:
    """Return the weight of the Gaussian term and its accuracy: by validation, else by folds."""
    seen, c = fitted.recipe.seen, len(data.w)
    if len(data.val_y):
        y, start = data.val_y, fitted.logits(data.val_x, data.classes)
        term = gaussian.discriminant(data.val_x)
    elif data.shots >= 2:
        # the trained parts have seen these images, so the folds are judged beside zero-shot CLIP
        y, start = data.y, data.scale * data.x @ data.w.T
        term = out_of_fold_scores(data.x, data.y, c, min(_FOLDS, data.shots))
    else:
        y, start, term = data.y[:0], data.x[:0], data.x[:0]
    return choose(seen.alphas, lambda a: start + a * term, y, seen.fallback_alpha)

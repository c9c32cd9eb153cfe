"""What stands for a class, chosen before anything is trained; then the convex problems on it.

The descriptions of a class enter here: ``t_i = unit((1 − β)·hand-written + β·descriptions)``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .adapter import FittedAdapter
from .convex import best_temperature, cross_entropies, fit_convex
from .problem import ClassText, FewShot
from .recipe import ClassTextRecipe, Recipe
from .seeds import Seeds
from .terms import OwnWeights, SharedMap, Term, ZeroShot


def choose_class_text(
    data: FewShot, recipe: ClassTextRecipe
) -> tuple[ClassText, dict[str, dict[str, float]]]:
    """Return the class text with the least cross-entropy of zero-shot CLIP at its temperature.

    The images judge texts that have not seen them, so training images will do; those of validation
    join them. What is chosen on trained classes holds for new ones.

    Returns:
        The choice, and the cross-entropy of every candidate (``{base: {β: value}}``).
    """
    x, y = torch.cat([data.x, data.val_x]), torch.cat([data.y, data.val_y])
    losses: dict[ClassText, float] = {}
    for base in recipe.bases:
        for share in recipe.shares:
            choice = ClassText(base, share)
            losses[choice] = zero_shot_loss(x, y, data.classes.text(choice), data.scale)
    best = min(losses, key=lambda choice: losses[choice])
    table: dict[str, dict[str, float]] = {}
    for choice, loss in losses.items():
        table.setdefault(choice.base, {})[f"{choice.share:g}"] = round(loss, 4)
    return best, table


def zero_shot_loss(x: Tensor, y: Tensor, t: Tensor, scale: float) -> float:
    """Return the mean cross-entropy of zero-shot CLIP on x (n, d) at its best temperature."""
    logits = scale * x @ t.T
    return float(cross_entropies(logits * best_temperature([(logits, y)]), y).mean())


def fit_by_convex_problems(data: FewShot, recipe: Recipe, seeds: Seeds) -> FittedAdapter:
    """Choose the class texts, solve both problems, and put the terms into the table."""
    choice, losses = choose_class_text(data, recipe.class_text)
    t = data.classes.text(choice)
    found = fit_convex(
        data.x, data.y, t, data.scale, recipe.convex, data.val_x, data.val_y, seeds.order
    )
    terms: list[Term] = [ZeroShot(data.scale)]
    warm, cool = found.seen_temperature, found.new_temperature
    table = {"zero-shot": (warm * found.sharpness, cool * found.sharpness)}
    if found.seen is not None:
        terms.append(OwnWeights(found.seen.weight, found.seen.bias))
        table["own weights"] = (warm * found.seen_weight, 0.0)
    shared = None if found.new is None else SharedMap.of(found.new)
    if shared is not None:
        terms.append(shared)
        table["shared map"] = (0.0, cool * found.new_weight)
    chosen: dict[str, Any] = {
        "class text": {"base": choice.base, "share": choice.share},
        "cross-entropy of class texts": losses,
    } | found.chosen
    return FittedAdapter(recipe, t, terms, table, data.scale, choice, chosen=chosen)

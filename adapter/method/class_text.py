"""What stands for a class, chosen before anything is trained; then the convex problems on it.

The descriptions of a class enter here: ``t_i = unit((1 − β)·hand-written + β·descriptions)``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .adapter import FittedAdapter
from .convex import fit_convex
from .convex_folds import enough_images, sure_gain
from .problem import ClassText, FewShot
from .recipe import ClassTextRecipe, Recipe
from .seeds import Seeds
from .temperature import losses
from .terms import OwnWeights, SharedMap, Term, ZeroShot


def choose_class_text(
    data: FewShot, recipe: ClassTextRecipe
) -> tuple[ClassText, dict[str, dict[str, float]]]:
    """Return the class text with the least cross-entropy of zero-shot CLIP at its temperature.

    The images judge texts that have not seen them, so training images will do; those of validation
    join them. What is chosen on trained classes shall hold for new ones, so a text is preferred to
    the first one by what it gains less ``doubt`` standard errors over classes.

    Returns:
        The choice, and the cross-entropy of every candidate (``{base: {β: value}}``).
    """
    some = enough_images(data.y, len(data.classes))
    x, y = torch.cat([data.x[some], data.val_x]), torch.cat([data.y[some], data.val_y])
    c = len(data.classes)
    first = ClassText(recipe.bases[0], recipe.shares[0])
    plain = zero_shot_losses(x, y, data.classes.text(first), data.scale)
    best, best_gain, table = first, 0.0, {}
    for base in recipe.bases:
        for share in recipe.shares:
            choice = ClassText(base, share)
            cost = zero_shot_losses(x, y, data.classes.text(choice), data.scale)
            gain = sure_gain(plain - cost, y, c, recipe.doubt)
            if gain > best_gain:
                best, best_gain = choice, gain
            table.setdefault(base, {})[f"{share:g}"] = round(float(cost.mean()), 4)
    return best, table


def zero_shot_losses(x: Tensor, y: Tensor, t: Tensor, scale: float) -> Tensor:
    """Return the cross-entropy (n,) of zero-shot CLIP on x (n, d) at its best temperature."""
    return losses([(scale * x @ t.T, y)])


def fit_by_convex_problems(data: FewShot, recipe: Recipe, seeds: Seeds) -> FittedAdapter:
    """Choose the class texts, solve both problems, and put the terms into the table."""
    choice, text_losses = choose_class_text(data, recipe.class_text)
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
        "cross-entropy of class texts": text_losses,
    } | found.chosen
    return FittedAdapter(recipe, t, terms, table, data.scale, choice, chosen=chosen)

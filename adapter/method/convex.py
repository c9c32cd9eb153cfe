"""The default recipe: two convex problems on top of zero-shot CLIP, each with its temperature.

    seen class   T·(τs·x·t_c + λ·(x − x̄)ᵀ A w_c)            w_c = B (t_c − t̄) + δ_c
    new class    T'·(τs·x·t  + λ'·(x − x̄)ᵀ A' B' (t − t̄))   B' of such a problem, without its δ

What is chosen, and by which images: ``convex_folds.py``. The problem: ``convex_problem.py``.
n images, c classes, d embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .convex_folds import Choice, choose_new, choose_seen, enough_images
from .convex_problem import ConvexProblem, Solution
from .pieces import ZeroShotLogits
from .recipe import ConvexRecipe
from .temperature import best_temperature


@dataclass
class ConvexFit:
    """Both problems solved, with their temperatures.

    Attributes:
        sharpness: τ of zero-shot CLIP. seen, new: solutions, or None where zero-shot CLIP stays.
        seen_weight, new_weight: λ and λ', of what they add to zero-shot CLIP.
        seen_temperature, new_temperature: T and T'. chosen: what was chosen, for the details.
    """

    sharpness: float
    seen: Solution | None
    new: Solution | None
    seen_weight: float
    new_weight: float
    seen_temperature: float
    new_temperature: float
    chosen: dict[str, Any] = field(default_factory=dict)


def fit_convex(
    x: Tensor,
    y: Tensor,
    t: Tensor,
    scale: float,
    choices: ConvexRecipe,
    val_x: Tensor | None = None,
    val_y: Tensor | None = None,
    seed: int = 0,
) -> ConvexFit:
    """Choose and solve both problems.

    Args:
        x: (n, d) images of unit length. y: (n,) labels. t: (c, d) class texts of unit length.
        scale: s, CLIP's factor of cosines.
        choices: what is chosen from. Turned off parts are zero in their lists.
        val_x, val_y: validation images of the same classes, if there are any.
        seed: of the folds.
    """
    val_x = x[:0] if val_x is None else val_x
    val_y = y[:0] if val_y is None else val_y
    some = enough_images(y, len(t))
    sharpness = best_temperature([(scale * x[some] @ t.T, y[some]), (scale * val_x @ t.T, val_y)])
    factor = sharpness * scale
    problem = ConvexProblem(x, y, t, ZeroShotLogits.of(x, t, factor))
    for_seen = choose_seen(problem, factor, choices, val_x, val_y, seed)
    for_new = choose_new(problem, factor, choices, seed)
    seen = _solve(problem, for_seen, for_seen.start)
    new = _solve(problem, for_new, seen)
    return ConvexFit(
        sharpness, seen, new, for_seen.weight, for_new.weight,
        for_seen.temperature, for_new.temperature,
        {"sharpness of zero-shot": sharpness, "seen": for_seen.facts(), "new": for_new.facts()},
    )  # fmt: skip


def _solve(problem: ConvexProblem, choice: Choice, start: Solution | None) -> Solution | None:
    """Solve at what was chosen, on all images; None where nothing is added to zero-shot CLIP."""
    setting = choice.setting
    if not choice.weight or setting is None or not (setting.own or setting.shared):
        return None
    return problem.solve(setting, start=start)

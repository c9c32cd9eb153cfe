"""Classifiers that need no images: a dot product with one text vector a class."""

from __future__ import annotations

from ...pipeline.errors import UserError
from ..method.problem import FewShot
from .base import Baseline, Fitted


def template(data: FewShot, seed: int) -> Fitted:
    """CLIP with one hand-written template (Radford et al. 2021)."""
    return Fitted(lambda x, classes: data.scale * x @ classes.template.T)


def ensemble(data: FewShot, seed: int) -> Fitted:
    """CLIP with the mean over hand-written templates (Radford et al. 2021)."""
    return Fitted(lambda x, classes: data.scale * x @ classes.ensemble.T)


def mean_of_prompts(data: FewShot, seed: int) -> Fitted:
    """The mean over LLM descriptions (CuPL, Pratt et al. 2023); the template for new classes."""
    return Fitted(lambda x, classes: data.scale * x @ classes.described.T)


def waffle(data: FewShot, seed: int) -> Fitted:
    """The mean over the template with random words (WaffleCLIP, Roth et al. 2023)."""
    if data.classes.waffle is None:
        raise UserError("The features come without texts of random words.")

    def logits(x, classes):
        return data.scale * x @ classes.waffle.T

    return Fitted(logits)


BASELINES = [
    Baseline(
        "zero-shot", "zero-shot template", template, "Radford et al. 2021", deterministic=True
    ),
    Baseline("ensemble", "template ensemble", ensemble, "Radford et al. 2021", deterministic=True),
    Baseline(
        "mean-of-prompts",
        "mean of prompts",
        mean_of_prompts,
        "Pratt et al. 2023",
        "LLM descriptions for seen classes, the template for new ones",
        deterministic=True,
    ),
    Baseline(
        "waffle",
        "waffle",
        waffle,
        "Roth et al. 2023",
        "random words: no knowledge",
        deterministic=True,
    ),
]

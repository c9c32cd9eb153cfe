"""The sections of the trees of runs and suites by name, for files of which one section is read."""

from __future__ import annotations

from ..pipeline.config import Section


def known_sections() -> dict[str, type[Section]]:
    """Return every section of this floor; those of the floor below it knows itself."""
    from .captions.settings import CaptionConfig, CaptioningConfig, VqaConfig
    from .config import DataConfig, EvaluationConfig
    from .method.recipe import Recipe

    return {
        "data": DataConfig,
        "recipe": Recipe,
        "evaluation": EvaluationConfig,
        "captions": CaptionConfig,
        "captioning": CaptioningConfig,
        "vqa": VqaConfig,
    }

"""Descriptions on the spot: what a language model knows of classes that a run has never heard of.

c classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..pipeline.files import cache_folder, hash_value
from ..pipeline.progress import step
from .asked_classes import AskedClass

if TYPE_CHECKING:
    from ..pipeline.config import GenerationConfig
    from ..pipeline.encoders.base import Encoder
    from ..pipeline.prompts.engines.base import Engine


def with_descriptions(
    text: Tensor,
    asked: Sequence[AskedClass],
    encoder: Encoder,
    about: Mapping[str, Any],
    engine: Engine | None = None,
    config: GenerationConfig | None = None,
) -> Tensor:
    """Return class texts (c, d) with descriptions in those of classes that were only named.

    They get the share β that the run chose for its own: ``unit((1 − β)·text + β·descriptions)``.

    Args:
        text: (c, d) without descriptions. asked: the classes. encoder: that of the run.
        about: the run's ``adapter_config.json``.
        engine, config: what writes, by default what the machine has.

    Raises:
        UserError: no language model can be had.
    """
    share = float((about.get("class_text") or {}).get("share", 0.0))
    places = [i for i, entry in enumerate(asked) if entry.class_id is None]
    if not places:
        step("Nothing to describe: no class was named that the run's data set has not.")
        return text
    if not share:
        step(
            "Nothing was described: the class texts of this run hold no descriptions, since its"
            " training photos wanted none. To have them anyway, train with: --set"
            " 'recipe.class_text.shares=[0.5]'."
        )
        return text
    described, some = describe_names([asked[i].name for i in places], encoder, engine, config)
    out = text.clone()
    for place, row, known in zip(places, torch.from_numpy(described), some):
        if known:
            out[place] = F.normalize(torch.lerp(text[place], row, share), dim=-1)
    return out


def describe_names(
    names: Sequence[str],
    encoder: Encoder,
    engine: Engine | None = None,
    config: GenerationConfig | None = None,
) -> tuple[np.ndarray, list[bool]]:
    """Return the mean description (c, d) of each name, unit length, and which names have any.

    A name without a kept description has zeros.

    Answers are kept by what was asked, so the same names are described once.
    """
    from ..pipeline.bank import PromptBank
    from ..pipeline.config import GenerationConfig
    from ..pipeline.datasets.manifest import Manifest
    from ..pipeline.prompts.generate import generate_prompts

    manifest = Manifest.parse(
        {
            "name": "named-classes",
            "title": "classes named at prediction",
            "tasks": ["classification"],
            "classes": [{"name": name} for name in names],
            "layouts": [{"kind": "image_folders"}],
            "licence": "none",
        },
        "The names",
    )
    key = hash_value([list(names), encoder.fingerprint])[:16]
    bank = cache_folder("banks", "named") / f"{key}.bank.parquet"
    config = config or GenerationConfig(samples=2)
    generate_prompts(manifest, bank, config, encoder=encoder, engine=engine)
    opened = PromptBank.open(bank)
    some = [kept > 0 for kept in opened.kept_counts()]
    mean = np.zeros((len(names), opened.metadata.dim), np.float32)
    mean[some] = opened.mean_embeddings(np.flatnonzero(some).tolist())
    for name, known in zip(names, some):
        if not known:
            step(f"No description of {name!r} was worth keeping; it is judged by its name.")
    return mean, some

"""A caption against its hard negative, image by image (SugarCrepe, Hsieh et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...pipeline.embed.texts import encode_texts
from ..results import MethodResult, Results
from .data import readable_features
from .train import CaptionAdapter

if TYPE_CHECKING:
    from pathlib import Path

    from ...pipeline.datasets import Dataset
    from ...pipeline.datasets.records import Contrast
    from ...pipeline.encoders.base import Encoder
    from ..run import RunFolder


def contrast_accuracy(
    image: np.ndarray, caption: np.ndarray, negative: np.ndarray, categories: Sequence[str]
) -> dict[str, float]:
    """Return the percentage of images nearer to their caption than to its hard negative.

    All inputs (n, d). A tie is an error, as in SugarCrepe (Hsieh et al. 2023). Keys are the
    categories and ``"mean"``, the mean over categories.
    """
    right = np.einsum("nd,nd->n", image, caption) > np.einsum("nd,nd->n", image, negative)
    names = np.asarray(categories)
    row = {str(name): 100.0 * float(right[names == name].mean()) for name in np.unique(names)}
    return row | {"mean": sum(row.values()) / len(row)}


def evaluate_contrasts(
    dataset: Dataset,
    encoder: Encoder,
    adapters: Sequence[CaptionAdapter],
    *,
    run: RunFolder | None = None,
    strict: bool = False,
) -> Results:
    """Evaluate caption against hard negative (SugarCrepe's official JSON) with x and h(x).

    Images that cannot be read are left out, unless ``strict``.

    Raises:
        UserError: the data set has no contrasts.
    """
    rows: list[Contrast] = dataset.contrasts("test")
    paths: list[Path] = [row.path for row in rows]
    found = readable_features(encoder, paths, "test", strict=strict)
    x, rows = found.x, [rows[i] for i in found.kept]
    caption = encode_texts(encoder, [row.caption for row in rows])
    negative = encode_texts(encoder, [row.negative_caption for row in rows])
    categories = [row.category for row in rows]
    plain = contrast_accuracy(x, caption, negative, categories)
    methods = [MethodResult("x (zero-shot)", [plain])]
    if adapters:
        ours = MethodResult("h(x)", [], group="ours", parameters=adapters[0].parameters)
        for adapter in adapters:
            adapter.check_encoder(encoder)
            row = contrast_accuracy(adapter.h(x), caption, negative, categories)
            ours.seeds.append({"seed": adapter.config.seed, **row})
        methods.append(ours)
    results = Results(
        task="contrasts",
        protocol="contrasts/1",
        dataset=dataset.manifest.name,
        encoder=encoder.id,
        metrics=list(plain),
        methods=methods,
        best="mean",
        title=f"Caption against hard negative, {len(rows)} pairs",
        units=dict.fromkeys(plain, "%"),
        notes=[encoder.notes] if encoder.notes else [],
    )
    if run:
        run.save_results(results)
    return results

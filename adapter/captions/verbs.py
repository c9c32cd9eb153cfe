"""The verbs ``train-captions``, ``eval retrieval``, ``captioning`` and ``vqa`` as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import UserError
from ...pipeline.one_or_many import one_or_many, several
from ...pipeline.settings import Assignments, Source, origin_of, read_source, settle

if TYPE_CHECKING:
    from ..results import Results


@one_or_many(split=("seeds",))
def train_captions(
    dataset: str = "",
    root: str | Path = "",
    seeds: int | Sequence[int] = (),
    distillation: float | None = None,
    encoder: str = "",
    checkpoint: str | Path = "",
    device: str = "",
    out: str | Path | None = None,
    config: Source = None,
    settings: Assignments = (),
    strict: bool = False,
) -> Results:
    """Train the generator on captioned images, for retrieval, captioning and answering.

    What is left empty is as ``config`` says, else as ``aape options captions`` does.

    Args:
        dataset: with captions. root: folder of its images. seeds: one generator each, by default
            1, 2 and 3. distillation: λ.
        encoder, checkpoint, device: the dual encoder; its local weights; where it runs.
        out: the run folder. config: a file, such as the ``config.yaml`` of such a run, or values.
        settings: ``{"captions.lr": 1e-3}``, or ``["captions.lr=1e-3"]``; they win.
        strict: stop at a photo that cannot be read; else it is left out, counted and named.

    Returns:
        Validation recall before and after training.

    Raises:
        UserError: no data set is named, it has no captions, or something does not fit.
    """
    from ..run import own_weights
    from .settings import CaptionRunConfig

    values = read_source(config)
    if values.get("task", "captions") != "captions" or "jobs" in values:
        raise UserError(
            f"{config} is no configuration of captions.", "Use it with: aape train --config FILE."
        )
    place = values.get("encoder")
    given: dict[str, Any] = {"encoder.checkpoint": str(checkpoint) or None}
    if isinstance(place, dict) and isinstance(config, str | Path):
        recorded = str(place.get("checkpoint", ""))
        place["checkpoint"] = own_weights(str(place.get("name")), recorded, str(checkpoint))
    given |= {
        "dataset": dataset or None, "root": str(root) or None, "seeds": several(seeds) or None,
        "captions.distillation": distillation, "encoder.name": encoder or None,
        "encoder.device": device or None, "encoder.strict": strict or None,
    }  # fmt: skip
    if not dataset and "dataset" not in values:
        raise UserError("Training on captions needs a data set.", "Name one: --dataset shapes.")
    made = settle(CaptionRunConfig, values, given, settings, origin=origin_of(config))
    from .run import run_captions

    return run_captions(made, Path(out) if out else None)


def eval_retrieval(
    run: str | Path,
    dataset: str = "",
    root: str | Path = "",
    max_images: int = 0,
    contrasts: bool = False,
    checkpoint: str | Path = "",
    strict: bool = False,
) -> Results:
    """Evaluate image-text retrieval with x, h(x) and their mixture, both directions.

    Args:
        run: a run folder of :func:`train_captions`. dataset, root: test data, if not the run's own.
        max_images: of the test split; 0 is all. contrasts: caption against hard negative.
        checkpoint: local weights of the run's encoder.
        strict: stop at a photo that cannot be read.

    Raises:
        UserError: there is no such run, or the data are not here.
    """
    from . import run as runs

    return runs.evaluate_run(
        Path(run), "contrasts" if contrasts else "retrieval", dataset=dataset, root=str(root),
        limit=max_images, checkpoint=str(checkpoint), strict=strict,
    )  # fmt: skip


def eval_captioning(
    run: str | Path,
    dataset: str = "",
    root: str | Path = "",
    language_model: str = "",
    steps: int | None = None,
    grid: int | None = None,
    aape_tokens: int | None = None,
    strategy: str = "",
    beams: int | None = None,
    max_tokens: int | None = None,
    java: bool = False,
    max_images: int = 0,
    checkpoint: str | Path = "",
    config: Source = None,
    settings: Assignments = (),
    strict: bool = False,
) -> Results:
    """Evaluate captions by a frozen language model: no image, image tokens, AAPE, both.

    Args:
        run, dataset, root, max_images, checkpoint, strict: as for :func:`eval_retrieval`.
        language_model: ``smollm2``, a folder or a model of the hub. steps: of the prefix.
        grid: image tokens are grid x grid. aape_tokens: slots that the AAPE fills.
        strategy: ``greedy``, ``beam`` or ``sample``. beams, max_tokens: of decoding.
        java: METEOR and SPICE too. config, settings: of ``aape options captioning``.

    Raises:
        UserError: there is no such run, the data are not here, or a setting cannot be.
    """
    from ..known_sections import known_sections
    from .settings import CaptioningConfig

    given = _prefix(language_model, steps, grid, aape_tokens) | {
        "decode.strategy": strategy or None, "decode.beams": beams,
        "decode.max_tokens": max_tokens, "java": java or None,
    }  # fmt: skip
    values = read_source(config, "captioning", known_sections())
    made = settle(
        CaptioningConfig, values, given, settings, section="captioning", origin=origin_of(config)
    )
    from . import run as runs  # late: a misspelt setting is told at once

    return runs.evaluate_run(
        Path(run), "captioning", dataset=dataset, root=str(root),
        settings=made.model_dump(mode="json"), limit=max_images, checkpoint=str(checkpoint),
        strict=strict,
    )  # fmt: skip


@one_or_many(split=("shots",))
def eval_vqa(
    run: str | Path,
    dataset: str = "",
    root: str | Path = "",
    language_model: str = "",
    steps: int | None = None,
    grid: int | None = None,
    aape_tokens: int | None = None,
    shots: int | Sequence[int] = (),
    train_on: str = "",
    caption_steps: int | None = None,
    wordnet: str | Path = "",
    max_questions: int = 0,
    checkpoint: str | Path = "",
    config: Source = None,
    settings: Assignments = (),
    strict: bool = False,
) -> Results:
    """Evaluate answers by a frozen language model, beside the most frequent answer per type.

    Args:
        run, dataset, root, checkpoint, strict: as for :func:`eval_retrieval`.
        language_model, steps, grid, aape_tokens: as for :func:`eval_captioning`.
        shots: answered questions shown. train_on: ``questions``, or ``captions`` (zero-shot).
        caption_steps: on captions before those on questions. wordnet: folder of its files.
        max_questions: of the test split; 0 is all. config, settings: of ``aape options vqa``.

    Raises:
        UserError: there is no such run, the data are not here, or a setting cannot be.
    """
    from ..known_sections import known_sections
    from .settings import VqaConfig

    given = _prefix(language_model, steps, grid, aape_tokens) | {
        "caption_steps": caption_steps, "shots": several(shots) or None,
        "train_on": train_on or None, "wordnet": str(wordnet) or None,
    }  # fmt: skip
    values = read_source(config, "vqa", known_sections())
    made = settle(VqaConfig, values, given, settings, section="vqa", origin=origin_of(config))
    from . import run as runs

    return runs.evaluate_run(
        Path(run), "vqa", dataset=dataset, root=str(root), settings=made.model_dump(mode="json"),
        limit=max_questions, checkpoint=str(checkpoint), strict=strict,
    )  # fmt: skip


def _prefix(
    language_model: str, steps: int | None, grid: int | None, slots: int | None
) -> dict[str, Any]:
    return {
        "language_model": language_model or None,
        "steps": steps,
        "grid": grid,
        "aape_tokens": slots,
    }

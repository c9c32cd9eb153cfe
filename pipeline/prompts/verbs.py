"""The verbs ``generate-prompts`` and ``import-prompts`` as functions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..config import GenerationConfig
    from ..encoders.base import Encoder
    from .importing import ImportReport


def generate_prompts(
    dataset: str | Sequence[str] = (),
    every: bool = False,
    engine: str = "",
    engine_python: str = "",
    model: str = "",
    samples: int | None = None,
    queries: str | Path | None = None,
    control: str = "",
    source: str | Path | None = None,
    out: str | Path | None = None,
    seed: int | None = None,
    base_url: str = "",
    encoder: str | Encoder = "auto",
    checkpoint: str = "",
    config: str | Path | Mapping[str, Any] | GenerationConfig | None = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
    about: str = "",
    contrast: str = "",
    other_names: int | None = None,
) -> list[dict[str, Any]]:
    """Have a language model describe the classes of data sets, and write prompt banks.

    Interrupted and started again it goes on. What is left empty is as ``config`` says.

    Args:
        dataset: a name, alias or manifest file, or several. every: all that have classes.
        engine: ``vllm``, ``transformers``, ``openai``, ``ray`` or ``import``.
        engine_python: interpreter that has vllm. model: ``smollm2``, a folder, a model id.
        samples: per query and class. queries: a file of your own, one a line;
            or ``auto``: the language model writes them from ``about``.
        control: ``waffle`` for random words instead of a language model.
        source: published file of the engine ``import``. out: the bank; a folder for several.
        seed: other texts, as reproducible. base_url: server of the engine ``openai``.
        encoder: embeds the prompts: its name, or an open one. checkpoint: its local weights.
        config: a file, section or mapping of ``aape options generation``.
        settings: ``{"sampling.top_p": 0.9}``, or ``["sampling.top_p=0.9"]``; they win.
        about: one sentence about the photos.
        contrast: ask what sets a class apart from those it is taken for, as told by ``texts``,
            training ``photos``, or ``auto``. other_names: ask so often for another name of a class.

    Returns:
        For each bank ``path``, ``prompts`` and how many have which verdict (``verdicts``).

    Raises:
        UserError: a name is unknown, words do not go together, or model, engine or encoder cannot
            be had. Answers that were finished are kept.
    """
    from .engines.vllm import PYTHON_VARIABLE
    from .plan import plan

    if engine_python:
        os.environ[PYTHON_VARIABLE] = engine_python
    made = plan(
        [dataset] if isinstance(dataset, str) else list(dataset),
        every=every,
        config=config,
        out=Path(out) if out else None,
        queries="auto" if queries == "auto" else Path(queries) if queries else None,
        control=control,
        source=Path(source) if source else None,
        options={
            "engine": engine,
            "model": model,
            "samples": samples,
            "seed": seed,
            "about": about.strip(),
            "contrast.by": contrast,
            "other_names": other_names,
            "server.base_url": base_url,
        },
        settings=settings,
    )
    return made.run(encoder, checkpoint)


def import_prompts(
    file: str | Path,
    dataset: str,
    out: str | Path | None = None,
    kind: str = "auto",
    allow_unmatched: bool = False,
    encoder: str = "auto",
    checkpoint: str = "",
) -> ImportReport:
    """Turn a published file of prompts into a bank, with a report of how its names matched.

    Args:
        file: JSON as CuPL, LaFTer, HPT … publish it. dataset: that it describes.
        out: the bank, or the folder in which it gets its usual name. kind: name of the format.
        allow_unmatched: go on where names match no class, or classes have no prompts.
        encoder: embeds the prompts. checkpoint: its local weights.

    Raises:
        UserError: the file cannot be read, or names do not match.
    """
    from ..datasets import load_manifest
    from .plan import import_file

    if not str(dataset):
        raise UserError("Which data set does the file describe?", "Name it.")
    place = Path(out) if out else None
    return import_file(
        Path(file), load_manifest(dataset), place, kind, allow_unmatched, encoder, checkpoint
    )

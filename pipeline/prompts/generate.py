"""From class names to a prompt bank: ask, keep every answer, judge, top up, encode, write.

The answers are kept beside the bank (``cars.bank.parquet.answers/``) as they come. A second run
asks only for what is missing, so an interruption costs the answers in flight and nothing else; and
since a text depends on its request alone, the bank is the same as that of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import GenerationConfig
from ..datasets.manifest import Manifest, Query
from ..errors import UserError
from ..files import exclusive
from ..progress import step
from .engines import choose_engine, open_engine, resolve_model
from .engines.base import Engine
from .job import Asker, Job
from .judge import Judge, write_drafts
from .requests import ModelIdentity

if TYPE_CHECKING:
    from ..encoders.base import Encoder


def default_bank_path(dataset: str) -> Path:
    """Return where the bank of a data set goes if nothing else is said: the current folder."""
    return Path(f"{dataset}.bank.parquet")


def generate_prompts(
    manifest: Manifest,
    out: str | Path | None = None,
    config: GenerationConfig | None = None,
    *,
    encoder: Encoder | None = None,
    queries: Sequence[Query] | None = None,
    engine: Engine | None = None,
) -> Path:
    """Make the prompt bank of one data set; returns its path.

    Args:
        out: the bank, by default ``<data set>.bank.parquet`` in the current folder.
        encoder: embeds the prompts; by default ``load_encoder("auto")``.
        queries: used instead of those of the manifest.
        engine: an engine that is open already, instead of the one of ``config``.

    Raises:
        UserError: the model, engine or encoder cannot be had, the disk is full, or another process
            makes the same bank. Answers that were finished are kept.
    """
    return generate_banks(
        [manifest], [out], config, encoder=encoder, queries=queries, engine=engine
    )[0]


def generate_banks(
    manifests: Sequence[Manifest],
    outs: Sequence[str | Path | None] | None = None,
    config: GenerationConfig | None = None,
    *,
    encoder: Encoder | None = None,
    queries: Sequence[Query] | None = None,
    engine: Engine | None = None,
) -> list[Path]:
    """Make the banks of several data sets through one start of the engine.

    Raises:
        UserError: as :func:`generate_prompts`.
    """
    config = config or GenerationConfig()
    if queries and config.about:
        raise UserError(
            "Queries were given, and a sentence from which the language model is to write them.",
            "Leave out one of them: --queries FILE, or --queries auto --about SENTENCE.",
        )
    outs = outs or [None] * len(manifests)
    paths = [Path(out or default_bank_path(item.name)) for item, out in zip(manifests, outs)]
    if len(set(paths)) != len(paths):
        raise UserError("Two data sets would be written to one bank.", "Give each its own --out.")
    if engine is None:
        choice = choose_engine(config)
        step(f"Engine: {choice.name} ({choice.reason}).")
        name = choice.name
        model = resolve_model(config, choice.name)

        def opened() -> Engine:
            step(f"Starting {choice.name} with {model.name} …")
            return open_engine(config, model, choice.name)
    else:
        given, name = engine, engine.name
        model = ModelIdentity(config.model, config.revision, "")

        def opened() -> Engine:
            return given

    with ExitStack() as stack:
        jobs = [
            Job(manifest, path, config, model, queries) for manifest, path in zip(manifests, paths)
        ]
        for job in jobs:
            stack.enter_context(exclusive(job.folder, "filling"))
            job.open_log()
        asker = Asker(opened, owned=engine is None)
        stack.callback(asker.close)
        judge = Judge(encoder, config.verdicts)
        if config.about:
            # JSON where the engine can force it: a server may not, and is asked only if wished
            structured = config.structured_output or name == "vllm"
            asked = [(job, request) for job in jobs for request in job.about(structured)]
            asker.ask(asked, "Writing queries")
            for job in jobs:
                job.take_queries()
        for job in jobs:
            job.add_words(judge)
        asker.ask_all(jobs)
        for job in jobs:
            job.judge(judge)
        _top_up(jobs, asker, judge, config)
        asker.close()  # the memory of the language model is free before anything else is loaded
        for job in jobs:
            _write(job, judge)
    return paths


def _top_up(jobs: Sequence[Job], asker: Asker, judge: Judge, config: GenerationConfig) -> None:
    """Ask once more, sample by sample, for the classes that were left with too few prompts.

    Which classes these are follows from the answers alone, so a rerun takes the same decisions.
    """
    wished = config.top_up.min_kept
    for extra in range(config.top_up.max_samples):
        poor = [job.poor() for job in jobs]
        if not any(poor):
            return
        for job, class_ids in zip(jobs, poor):
            job.add([config.samples + extra], class_ids)
        if any(job.missing() for job in jobs):
            step(f"{_classes(poor)} fewer than {wished} kept prompts: one more sample a query.")
        asker.ask_all(jobs)
        for job, class_ids in zip(jobs, poor):
            job.judge(judge, class_ids)
    for job in jobs:
        if config.top_up.max_samples and (few := job.poor()):
            names = ", ".join(repr(job.manifest.class_names[c])[:40] for c in few[:5])
            step(
                f"{_classes([few])} fewer than {wished} kept prompts in {job.manifest.name}, and "
                f"the budget is spent: {names}{' …' if len(few) > 5 else ''}."
            )


def _classes(ids: Sequence[Sequence[int]]) -> str:
    count = sum(map(len, ids))
    return "1 class has" if count == 1 else f"{count:,} classes have"


def _write(job: Job, judge: Judge) -> None:
    from ..bank import WrittenQueries

    drafts = list(job.drafts.values())
    about = job.config.about if job.own else ""
    written = WrittenQueries(about=about, queries=[query.text for query in job.own])
    write_drafts(job.path, drafts, job.manifest, judge, note=job.folder / "bank.json", own=written)

"""From class names to a prompt bank: ask, keep every answer, judge, top up, encode, write.

The answers are kept beside the bank (``cars.bank.parquet.answers/``) as they come. A second run
asks only for what is missing, so an interruption costs the answers in flight and nothing else; and
since a text depends on its request alone, the bank is the same as that of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import GenerationConfig
from ..datasets.manifest import Manifest, Query
from ..errors import UserError
from ..files import exclusive
from ..progress import bar, step
from .answers import AnswerLog
from .engines import choose_engine, open_engine, resolve_model
from .engines.base import Engine
from .judge import Draft, Judge, check_overwrite, write_drafts
from .requests import ModelIdentity, Request, build_requests
from .verdicts import KEPT, ClassNames

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
    outs = outs or [None] * len(manifests)
    paths = [Path(out or default_bank_path(item.name)) for item, out in zip(manifests, outs)]
    if len(set(paths)) != len(paths):
        raise UserError("Two data sets would be written to one bank.", "Give each its own --out.")
    if engine is None:
        choice = choose_engine(config)
        step(f"Engine: {choice.name} ({choice.reason}).")
        model = resolve_model(config, choice.name)

        def opened() -> Engine:
            step(f"Starting {choice.name} with {model.name} …")
            return open_engine(config, model, choice.name)
    else:
        given = engine
        model = ModelIdentity(config.model, config.revision, "")

        def opened() -> Engine:
            return given

    with ExitStack() as stack:
        jobs = [
            _Job(manifest, path, config, model, queries) for manifest, path in zip(manifests, paths)
        ]
        for job in jobs:
            stack.enter_context(exclusive(job.folder, "filling"))
            job.open_log()
        asker = _Asker(opened, owned=engine is None)
        stack.callback(asker.close)
        asker.ask(jobs)
        judge = Judge(encoder, config.verdicts)
        for job in jobs:
            job.judge(judge)
        _top_up(jobs, asker, judge, config)
        asker.close()  # the memory of the language model is free before anything else is loaded
        for job in jobs:
            _write(job, judge)
    return paths


class _Job:
    """One bank: its drafts by request key, and its log of answers."""

    def __init__(
        self,
        manifest: Manifest,
        path: Path,
        config: GenerationConfig,
        model: ModelIdentity,
        queries: Sequence[Query] | None,
    ) -> None:
        self.manifest, self.path, self.config, self.model = manifest, path, config, model
        self.queries = queries
        self.folder = Path(f"{path}.answers")
        self.classes = ClassNames(manifest.class_names)
        self.drafts: dict[str, Draft] = {}
        self.add()
        check_overwrite(path, manifest.name)

    def open_log(self) -> None:
        """Read what was answered before. The lock of the folder must be held."""
        self.log = AnswerLog(self.folder)
        self.log.merge()

    def add(
        self, samples: Iterable[int] | None = None, class_ids: Iterable[int] | None = None
    ) -> None:
        """Add the requests of some samples and classes, by default those of the configuration."""
        requests = build_requests(
            self.manifest,
            self.config,
            self.model,
            queries=self.queries,
            samples=samples,
            class_ids=class_ids,
        )
        self.drafts.update({request.key: Draft(request, self.model) for request in requests})

    def missing(self) -> list[Request]:
        """Return the requests without an answer, in order."""
        return [draft.request for key, draft in self.drafts.items() if key not in self.log]

    def judge(self, judge: Judge, class_ids: Iterable[int] | None = None) -> None:
        """Judge the prompts of some classes, by default of all."""
        chosen = None if class_ids is None else set(class_ids)
        drafts = [
            draft
            for draft in self.drafts.values()
            if chosen is None or draft.request.class_id in chosen
        ]
        for draft in drafts:
            draft.answer = self.log[draft.request.key]
        judge.judge(drafts, self.classes)

    def poor(self) -> list[int]:
        """Return the classes with fewer kept prompts than wished."""
        kept = dict.fromkeys(range(len(self.manifest.class_names)), 0)
        for draft in self.drafts.values():
            kept[draft.request.class_id] += draft.verdict == KEPT
        return [c for c, count in kept.items() if count < self.config.top_up.min_kept]


class _Asker:
    """Asks for what the logs lack. The engine starts when the first answer is missing."""

    def __init__(self, start: Callable[[], Engine], *, owned: bool) -> None:
        self._start, self._owned = start, owned
        self._engine: Engine | None = None

    def ask(self, jobs: Sequence[_Job]) -> None:
        """Fill the logs of all jobs through one call of the engine."""
        owner = {request.key: job for job in jobs for request in job.missing()}
        total = sum(len(job.drafts) for job in jobs)
        if not owner:
            return
        if total > len(owner):
            step(f"{total - len(owner):,} of {total:,} answers are here already.")
        if self._engine is None:
            self._engine = self._start()
        requests = [job.drafts[key].request for key, job in owner.items()]
        with bar() as display:
            task = display.add_task("Writing prompts", total=len(requests))
            for group in self._engine.generate(requests):
                for job in jobs:
                    job.log.append([answer for answer in group if owner[answer.key] is job])
                display.advance(task, len(group))
        unanswered = sum(len(job.missing()) for job in jobs)
        if unanswered:
            raise UserError(
                f"The engine left {unanswered:,} of {len(requests):,} requests without an answer.",
                "Run the same command again: only those are asked.",
            )

    def close(self) -> None:
        """End the engine, if it is ours and was started."""
        if self._engine is not None and self._owned:
            self._engine.close()
        self._engine = None


def _top_up(jobs: Sequence[_Job], asker: _Asker, judge: Judge, config: GenerationConfig) -> None:
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
        asker.ask(jobs)
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


def _write(job: _Job, judge: Judge) -> None:
    drafts = list(job.drafts.values())
    write_drafts(job.path, drafts, job.manifest, judge, note=job.folder / "bank.json")

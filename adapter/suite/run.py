"""Run a suite: banks, then every task on every data set, then one report.

Each finished table carries the key of all that decided it, so a second run of the same suite reuses
it and says so; an interrupted one goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ...pipeline.errors import UserError
from ...pipeline.files import read_json, write_json
from ...pipeline.progress import step
from ..finish import finish_run
from ..report import Stage, write_report
from ..report.page import duration
from ..results import Results
from ..run import RunFolder, environment
from .costs import say_work
from .keys import TableKeys
from .needs import Need, dataset_needs
from .opened import Opened
from .plan import Job, Suite, Task
from .summaries import summaries
from .tasks import Tasks

if TYPE_CHECKING:
    from ...pipeline.bank import PromptBank

_SHOWN_CLASSES, _SHOWN_PROMPTS = 4, 3


def run_suite(suite: Suite, out: str | Path, *, skip_missing: bool = False) -> list[Results]:
    """Run all jobs of the suite in the folder ``out`` and write ``report.html`` there.

    Args:
        skip_missing: leave out data sets that are not on this machine instead of stopping.

    Raises:
        UserError: a data set is missing or lacks a file (all of them are named, before any work),
            or a stage fails for a reason the user can mend. Finished stages are kept.
    """
    work = _Work(suite, Path(out), skip_missing)
    with work.folder.making():
        work.folder.start(suite)
        work.say_costs()
        work.make_banks()
        results = [work.evaluate(job, task) for job in work.jobs for task in job.tasks]
        work.report(results)
    return results


class _Work:
    """One run of a suite: what is open, what was done and how long it took."""

    def __init__(self, suite: Suite, out: Path, skip_missing: bool) -> None:
        self.suite, self.out = suite, out
        self.folder = RunFolder(out)
        self.opened = Opened(suite, out)
        self.stages: list[Stage] = []
        self.notes: list[str] = []
        self.jobs = self._open_datasets(skip_missing)
        self.keys = TableKeys(self.opened, self.jobs)
        self.tasks = Tasks(self.opened)

    def _open_datasets(self, skip_missing: bool) -> list[Job]:
        found = dataset_needs(self.suite, self.opened.datasets)
        lacking = {need.name: need for need in found if not need.here}
        jobs, missing = [], {}
        for job in self.suite.jobs:
            absent = [lacking[name] for name in job.datasets if name in lacking]
            if not absent:
                jobs.append(job)
            elif job.optional or skip_missing:
                self.notes.append(f"{job.folder} was left out: {_what_is_missing(absent[0])}")
            else:
                missing |= {need.name: _what_is_missing(need) for need in absent}
        if missing:
            raise UserError(
                " ".join(missing.values()),
                f"aape eval all --suite {self.suite.name} --dry-run lists every file and where to"
                " get it; --skip-missing leaves these data sets out.",
            )
        if not jobs:
            raise UserError(f"No data set of the suite {self.suite.name!r} is on this machine.")
        for note in self.notes:
            step(note)
        return jobs

    def say_costs(self) -> None:
        """Say how much there is to do, and about how long it takes, where nothing is done yet."""
        left = [
            job.model_copy(update={"tasks": tasks})
            for job in self.jobs
            if (tasks := [task for task in job.tasks if not self._table(job, task).exists()])
        ]
        for line in say_work(self.suite, left, self.opened.datasets, self.opened.encoder):
            step(line)

    def _table(self, job: Job, task: Task) -> Path:
        return RunFolder(self.out / job.folder).results_path(task)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Announce a stage, time it, and keep the time of the run that did the work."""
        step(f"\n[{len(self.stages) + 1}] {name}")
        stage = Stage(name, 0.0)
        start = time.perf_counter()
        yield stage
        stage.seconds = time.perf_counter() - start
        times = self.out / "stages.json"
        known = read_json(times) if times.exists() else {}
        if stage.reused and name in known:
            stage = Stage(**known[name] | {"reused": True})
        else:
            write_json(times, known | {name: asdict(stage)})
        self.stages.append(stage)
        step(f"    {'reused' if stage.reused else 'done in ' + duration(stage.seconds)}")

    def make_banks(self) -> None:
        """Generate what banks are missing, all through one start of the language model."""
        from ...pipeline.bank import PromptBank
        from ...pipeline.prompts.generate import generate_banks

        jobs = [job for job in self.jobs if "classification" in job.tasks]
        names = list(dict.fromkeys(name for job in jobs for name in (job.dataset, *job.targets)))
        if not names:
            return
        with self.stage(f"prompt banks: {', '.join(names)}") as stage:
            before = [self.opened.hash_of_bank(name) for name in names]
            manifests = [self.opened.datasets[name].manifest for name in names]
            generate_banks(
                manifests,
                [self.opened.bank(name) for name in names],
                self.suite.generation,
                encoder=self.opened.encoder,
            )
            banks = [PromptBank.open(self.opened.bank(name)) for name in names]
            _check_described(dict(zip(names, banks)), [job.dataset for job in jobs])
            stage.reused = before == [self.opened.hash_of_bank(name) for name in names]
            stage.detail = f"{sum(map(len, banks)):,} prompts"

    def evaluate(self, job: Job, task: Task) -> Results:
        """Return the table of one task, made now or reused."""
        folder = RunFolder(self.out / job.folder)
        key = self.keys.key(job, task)
        path = folder.results_path(task)
        with self.stage(f"{task} on {job.folder}") as stage:
            if path.exists():
                done = Results.load(path)
                if done.details.get("suite_key") == key:
                    stage.reused = True
                    step(f"    Reusing {path}.")
                    return done
            results = self.tasks.run(task, job, folder)
            results.details["suite_key"] = key
            folder.save_results(results)
            finish_run(folder)
            return results

    def report(self, results: list[Results]) -> Path:
        """Write ``report.html`` over all tables, and ``summary-*.json`` of what joins several."""
        self.folder.begin()
        joined = summaries(results)
        for table in joined:
            table.save(self.out / f"summary-{table.details['summary']}.json")
        results[:0] = joined
        notes = [*self.notes]
        if self.opened.encoder.notes:
            notes.insert(0, self.opened.encoder.notes)
        path = write_report(
            self.out / "report.html",
            results,
            title=self.suite.title,
            summary=(
                "A language model described the classes, a text encoder embedded what it wrote, "
                "and a small adapter learned from it. Every table shows the adapter beside its "
                "baselines, on the same features and the same images."
            ),
            stages=self.stages,
            prompts=self._prompts(),
            environment=environment(),
            notes=notes,
        )
        step(f"\nReport: {path}")
        return path

    def _prompts(self) -> list[tuple[str, list[str]]]:
        from ...pipeline.bank import PromptBank

        job = next((job for job in self.jobs if "classification" in job.tasks), None)
        if job is None:
            return []
        bank = PromptBank.open(self.opened.bank(job.dataset))
        names = self.opened.datasets[job.dataset].class_names
        chosen = range(0, len(names), max(1, len(names) // _SHOWN_CLASSES))
        return [(names[i], bank.prompts(i)[:_SHOWN_PROMPTS]) for i in chosen][:_SHOWN_CLASSES]


def _check_described(banks: dict[str, PromptBank], trained: list[str]) -> None:
    """Stop before the images are encoded where classes to train have no kept prompt.

    Raises:
        UserError: there are some; the data sets and the first of their classes are named.
    """
    bare: dict[str, list[str]] = {}
    for name in dict.fromkeys(trained):
        names, counts = banks[name].metadata.class_names, banks[name].kept_counts()
        if lacking := [title for title, kept in zip(names, counts) if not kept]:
            bare[name] = lacking
    if bare:
        said = "; ".join(
            f"{len(names)} of {name}: {', '.join(map(repr, names[:3]))}"
            f"{' …' if len(names) > 3 else ''}"
            for name, names in bare.items()
        )
        raise UserError(
            f"Classes without a kept prompt in their bank: {said}.",
            "Ask for more (generation.samples, generation.top_up.max_samples) or name a larger"
            " language model (generation.model); `aape bank stats` shows the verdicts.",
        )


def _what_is_missing(need: Need) -> str:
    """Return one sentence: a data set that is not here, or what it lacks."""
    if not need.opened:
        return f"The files of data set {need.name!r} are not here ({need.place})."
    first, more = need.missing[0], len(need.missing) - 1
    rest = f" and {more:,} more" if more else ""
    return f"Data set {need.name!r} in {need.place} is not whole: {first.rstrip('.')}{rest}."

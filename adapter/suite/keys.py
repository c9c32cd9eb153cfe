"""What decides a table of a suite, as one hash: a table with the same key is not made again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...pipeline.files import hash_value
from .needs import job_reads
from .opened import Opened
from .plan import Job, Task

if TYPE_CHECKING:
    from ...pipeline.datasets import Dataset, Split


class TableKeys:
    """The keys of the tables of some jobs; the files of a data set are looked at once."""

    def __init__(self, opened: Opened, jobs: Sequence[Job]) -> None:
        self.opened, self.jobs = opened, jobs
        self._files: dict[str, str] = {}

    def key(self, job: Job, task: Task) -> str:
        """Return the hash of all that decides a table: settings, images, texts, encoder, code."""
        suite, dataset = self.opened.suite, self.opened.datasets[job.dataset]
        parts: list[Any] = [
            __version__,
            task,
            self.opened.encoder.fingerprint,
            dataset.manifest.hash,
        ]
        parts += [self._hash_of_files(name) for name in job.datasets]
        if task == "classification":
            parts += [self.opened.hash_of_bank(name) for name in (job.dataset, *job.targets)]
            recipe = job.recipe or suite.recipe
            parts += [recipe.model_dump(mode="json"), job.model_dump(mode="json")]
            parts.append(suite.repeat_images)
        else:
            own = {"captioning": suite.captioning, "vqa": suite.vqa}.get(task)
            parts += [suite.captions.model_dump(mode="json"), suite.caption_seeds]
            parts += [
                job.source,
                own and own.model_dump(mode="json"),
                suite.test_images,
                suite.test_questions,
            ]
        return hash_value(parts)

    def _hash_of_files(self, name: str) -> str:
        """Return the hash of what is read of a data set: paths, sizes, times, labels, texts."""
        if name not in self._files:
            jobs = [job_reads(job, self.opened.suite) for job in self.jobs]
            wanted = sorted({read for reads in jobs for read in reads.get(name, ())})
            self._files[name] = hash_value(_entries(self.opened.datasets[name], wanted))
        return self._files[name]


def _entries(dataset: Dataset, wanted: list[tuple[str, Split]]) -> list[Any]:
    """Return what decides the results of a data set: a row an image, without reading it."""
    rows: list[Any] = [dataset.layout.kind, dataset.split_note]
    for kind, split in wanted:
        for entry in getattr(dataset, kind)(split):
            found = entry.path.stat()
            said = {name: value for name, value in vars(entry).items() if name != "path"}
            place = os.path.relpath(entry.path, dataset.root)
            rows.append([kind, split, place, found.st_size, found.st_mtime_ns, said])
    return rows

"""The tasks of a job, run with the settings of its suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...pipeline.files import write_text
from ..config import Config, DataConfig
from ..results import Results
from ..run import RunFolder
from .opened import Opened
from .plan import Job, Task

if TYPE_CHECKING:
    from ..captions.train import CaptionAdapter


class Tasks:
    """Runs tasks; the generators of a job are trained for the first task that reads them."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self._adapters: dict[str, list[CaptionAdapter]] = {}

    def run(self, task: Task, job: Job, folder: RunFolder) -> Results:
        """Return the table of one task of a job.

        Raises:
            UserError: something is wrong that the user can mend.
        """
        if task != "classification":
            self._start_captions(job, folder)
        by_task = {
            "classification": self._classification,
            "retrieval": self._retrieval,
            "captioning": self._captioning,
            "vqa": self._vqa,
        }
        return by_task[task](job, folder)

    def _classification(self, job: Job, folder: RunFolder) -> Results:
        from ..classification.run import run_classification

        encoder = self.opened.suite.encoder.model_copy(update={"name": self.opened.encoder.id})
        config = Config(
            data=DataConfig(
                bank=str(self.opened.bank(job.dataset)),
                dataset=job.dataset,
                targets=[str(self.opened.bank(name)) for name in job.targets],
                repeat_images=self.opened.suite.repeat_images,
            ),
            encoder=encoder,
            recipe=job.recipe or self.opened.suite.recipe,
            evaluation=job.evaluation,
        )
        return run_classification(config, folder.path, encoder=self.opened.encoder)

    def _retrieval(self, job: Job, folder: RunFolder) -> Results:
        from ..captions.retrieval import evaluate_retrieval

        return evaluate_retrieval(
            self.opened.datasets[job.dataset],
            self.opened.encoder,
            self._caption_adapters(job, folder),
            run=folder,
            max_images=self.opened.suite.test_images,
        )

    def _captioning(self, job: Job, folder: RunFolder) -> Results:
        from ..captions.captioning import evaluate_captioning

        return evaluate_captioning(
            self.opened.datasets[job.dataset],
            self.opened.encoder,
            self._caption_adapters(job, folder),
            config=self.opened.suite.captioning,
            run=folder,
            max_images=self.opened.suite.test_images,
            source=self.opened.datasets[job.source] if job.source else None,
        )

    def _vqa(self, job: Job, folder: RunFolder) -> Results:
        from ..captions.vqa import evaluate_vqa

        return evaluate_vqa(
            self.opened.datasets[job.dataset],
            self.opened.encoder,
            self._caption_adapters(job, folder),
            config=self.opened.suite.vqa,
            run=folder,
            max_questions=self.opened.suite.test_questions,
            source=self.opened.datasets[job.source] if job.source else None,
        )

    def _start_captions(self, job: Job, folder: RunFolder) -> None:
        """Write how the captions of a folder were trained on, for `aape caption`, `ask`, `search`.

        A folder of the caption tasks alone is configured by nothing else.
        """
        from ..captions.settings import CAPTIONS_CONFIG, CaptionRunConfig

        encoder = self.opened.suite.encoder.model_copy(update={"name": self.opened.encoder.id})
        config = CaptionRunConfig(
            dataset=job.source or job.dataset,
            encoder=encoder,
            captions=self.opened.suite.captions,
            seeds=self.opened.suite.caption_seeds,
        )
        if "classification" not in job.tasks:
            folder.start(config)
            return
        write_text(folder.path / CAPTIONS_CONFIG, config.to_yaml())

    def _caption_adapters(self, job: Job, folder: RunFolder) -> list[CaptionAdapter]:
        """Return one generator a seed, trained on the job's captions."""
        from ..captions.train import train_captions

        if job.folder not in self._adapters:
            self._adapters[job.folder] = [
                train_captions(
                    self.opened.datasets[job.source or job.dataset],
                    self.opened.encoder,
                    config=self.opened.suite.captions.model_copy(update={"seed": seed}),
                    run=folder,
                )
                for seed in self.opened.suite.caption_seeds
            ]
        return self._adapters[job.folder]

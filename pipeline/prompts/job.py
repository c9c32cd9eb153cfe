"""One bank in the making: its requests, its log of answers, its drafts; and who asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..config import GenerationConfig
from ..datasets.manifest import Manifest, Query
from ..errors import UserError
from ..progress import bar, step
from .answers import AnswerLog
from .contrast import alike_classes, contrast_requests
from .engines.base import Engine
from .judge import Draft, Judge, check_overwrite
from .other_names import name_requests
from .own_queries import meta_requests, read_own_queries
from .requests import ModelIdentity, Request, build_requests
from .verdicts import KEPT, ClassNames


class Job:
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
        self.meta: list[Request] = []
        self.own: list[Query] = []
        self.add()  # a query that cannot be asked ends here, before any work
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

    def about(self, structured: bool) -> list[Request]:
        """Return the requests from whose answers the queries come."""
        self.meta = meta_requests(self.manifest, self.config, self.model, structured=structured)
        return self.meta

    def take_queries(self) -> None:
        """Ask the valid queries that the language model wrote; too few: those of the manifest."""
        answers = [self.log[request.key] for request in self.meta]
        wanted = self.config.own_queries
        own, refused = read_own_queries(
            [(answer.text, answer.finish_reason != "length") for answer in answers],
            self.classes,
            wanted.most,
        )
        name = self.manifest.name
        if len(own) < wanted.least:
            step(
                f"{self.model.name} wrote {len(own)} valid queries for {name} ({refused} refused),"
                f" and {wanted.least} are needed: the {len(self.manifest.queries)} queries of the"
                " data set are asked instead."
            )
            return
        step(f"{self.model.name} wrote {len(own)} queries for {name} ({refused} refused):")
        for query in own:
            step(f"  {query.text}")
        self.own, self.queries = own, own
        self.drafts.clear()
        self.add()

    def add_words(self, judge: Judge) -> None:
        """Add the requests for contrasts and other names, as far as they are wished for."""
        requests: list[Request] = []
        if self.config.contrast.by != "off":
            pairs = alike_classes(self.manifest, judge.encoder, self.config.contrast)
            requests += contrast_requests(self.manifest, self.config, self.model, pairs)
        requests += name_requests(self.manifest, self.config, self.model)
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


class Asker:
    """Asks for what the logs lack. The engine starts when the first answer is missing."""

    def __init__(self, start: Callable[[], Engine], *, owned: bool) -> None:
        self._start, self._owned = start, owned
        self._engine: Engine | None = None

    def ask_all(self, jobs: Sequence[Job]) -> None:
        """Fill the logs of all jobs through one call of the engine."""
        drafts = [(job, draft.request) for job in jobs for draft in job.drafts.values()]
        self.ask(drafts, "Writing prompts")

    def ask(self, wanted: Sequence[tuple[Job, Request]], doing: str) -> None:
        """Ask for those answers that the log of their job lacks."""
        missing = [(job, request) for job, request in wanted if request.key not in job.log]
        if not missing:
            return
        if len(wanted) > len(missing):
            step(f"{len(wanted) - len(missing):,} of {len(wanted):,} answers are here already.")
        if self._engine is None:
            self._engine = self._start()
        owner = {request.key: job for job, request in missing}
        with bar() as display:
            task = display.add_task(doing, total=len(owner))
            for group in self._engine.generate([request for _, request in missing]):
                for job in dict.fromkeys(owner.values()):
                    job.log.append([answer for answer in group if owner[answer.key] is job])
                display.advance(task, len(group))
        unanswered = sum(request.key not in job.log for job, request in missing)
        if unanswered:
            raise UserError(
                f"The engine left {unanswered:,} of {len(owner):,} requests without an answer.",
                "Run the same command again: only those are asked.",
            )

    def close(self) -> None:
        """End the engine, if it is ours and was started."""
        if self._engine is not None and self._owned:
            self._engine.close()
        self._engine = None

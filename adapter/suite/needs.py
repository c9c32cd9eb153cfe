"""What a suite needs before it can run: every file that is missing, where to get it, its licence.

Looks, and computes nothing: no weights are read, no image is opened, no network is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipeline.datasets import Dataset, load_manifest, open_dataset
from ...pipeline.datasets.check import absent_files, where_to_get
from ...pipeline.datasets.dataset import candidate_roots
from ...pipeline.errors import UserError
from .costs import suite_work

if TYPE_CHECKING:
    from ...pipeline.datasets import Manifest, Split
    from .plan import Job, Suite

SHOWN = 5
_CAPTION_TASKS = ("retrieval", "captioning")


@dataclass(frozen=True)
class Need:
    """One thing that a suite reads: a data set, an encoder, a language model.

    Attributes:
        kind: ``data set``, ``encoder`` or ``language model``.
        place: where it is, or where it was looked for.
        missing: files that are not there, or what is wrong with those that are.
        remarks: what is there but not as the published figures want it.
        get: how to get what is missing. downloads: what can be fetched without an account, each
            with url, file, size in bytes (0 where not published) and sha256.
        optional: the suite runs without it.
    """

    kind: str
    name: str
    title: str
    place: str
    missing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    licence: str = ""
    get: str = ""
    downloads: list[dict[str, Any]] = field(default_factory=list)
    optional: bool = False
    opened: bool = False
    """Whether a data set is there in a layout that is known, whole or not."""

    @property
    def here(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    def lines(self) -> list[str]:
        """Return what people want to read of it: one line where nothing is missing."""
        state = "here" if self.here else "missing, not needed" if self.optional else "missing"
        out = [f"{self.kind} {self.name}: {state} ({self.place})"]
        out += [f"    missing: {entry}" for entry in self.missing[:SHOWN]]
        if len(self.missing) > SHOWN:
            out.append(f"    missing: {len(self.missing) - SHOWN:,} more (all with --json)")
        out += [f"    note: {remark}" for remark in self.remarks]
        if not self.here or self.remarks:
            out += [f"    get it: {self.get}"] if self.get else []
        if not self.here:
            out += [f"    licence: {self.licence}"] if self.licence else []
            known = sum(entry["size"] for entry in self.downloads)
            if self.downloads:
                least = "" if all(entry["size"] for entry in self.downloads) else "at least "
                size = f", {least}{known / 1e9:.1f} GB" if known else ""
                out.append(f"    to fetch: {len(self.downloads)} files{size}")
        return out


@dataclass(frozen=True)
class SuiteNeeds:
    """All that a suite reads, and how much work it is: what ``--dry-run`` prints."""

    suite: str
    needs: list[Need]
    work: list[str] = field(default_factory=list)
    """One line a data set that is here: its images, texts and answers."""

    @property
    def complete(self) -> bool:
        """Whether the suite can start."""
        return all(need.here or need.optional for need in self.needs)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, every missing file included, for ``--json``."""
        return {"complete": self.complete, **asdict(self)}

    def lines(self) -> list[str]:
        """Return the report for people."""
        lacking = [need for need in self.needs if not need.here and not need.optional]
        out = [line for need in self.needs for line in need.lines()]
        out += [f"work: {line}" for line in self.work]
        if lacking:
            names = ", ".join(need.name for need in lacking)
            out.append(f"The suite {self.suite} lacks {len(lacking)} things: {names}.")
        else:
            out.append(f"The suite {self.suite} has everything that it needs.")
        return out


def suite_needs(suite: Suite) -> SuiteNeeds:
    """Look for all that a suite reads.

    Raises:
        UserError: the suite names a data set that has no manifest, or an unknown encoder.
    """
    opened: dict[str, Dataset] = {}
    needs = dataset_needs(suite, opened)
    whole = {need.name for need in needs if need.here}
    jobs = [job for job in suite.jobs if whole.issuperset(job.datasets)]
    work = [item.line() for item in suite_work(suite, jobs, opened)]
    needs.append(_encoder_need(suite.encoder.name, suite.encoder.checkpoint))
    return SuiteNeeds(suite.name, [*needs, *_language_models(suite)], work)


def dataset_needs(suite: Suite, opened: dict[str, Dataset]) -> list[Need]:
    """Look for the data sets that a suite reads; those that are found are put into ``opened``.

    Raises:
        UserError: the suite names a data set that has no manifest.
    """
    wanted: dict[str, set[tuple[str, Split]]] = {}
    needed: set[str] = set()
    for job in suite.jobs:
        for name, what in job_reads(job, suite).items():
            wanted.setdefault(name, set()).update(what)
        if not job.optional:
            needed.update(job.datasets)
    return [
        _dataset_need(name, what, opened, optional=name not in needed)
        for name, what in wanted.items()
    ]


def job_reads(job: Job, suite: Suite) -> dict[str, set[tuple[str, Split]]]:
    """Return what a job reads of each data set: contents and split, such as captions of train."""
    reads: dict[str, set[tuple[str, Split]]] = {name: set() for name in job.datasets}
    for task in job.tasks:
        if task == "classification":
            reads[job.dataset] |= {("items", "train"), ("items", "test")}
            for target in job.targets:
                reads[target].add(("items", "test"))
            continue
        kind = "captions" if task in _CAPTION_TASKS else "questions"
        reads[job.dataset].add((kind, "test"))
        reads[job.source or job.dataset].add(("captions", "train"))
        if task == "vqa" and suite.vqa.train_on == "questions":
            reads[job.dataset].add(("questions", "train"))
    return reads


def _dataset_need(
    name: str, wanted: Iterable[tuple[str, Split]], opened: dict[str, Dataset], *, optional: bool
) -> Need:
    manifest = load_manifest(name)
    about: dict[str, Any] = {
        "kind": "data set",
        "name": name,
        "title": manifest.title,
        "licence": manifest.licence,
        "get": where_to_get(manifest),
        "downloads": [
            entry.model_dump(include={"url", "file", "size", "sha256"})
            for entry in manifest.downloads
        ],
        "optional": optional,
    }
    try:
        dataset = open_dataset(manifest)
    except UserError:
        roots = candidate_roots(manifest)
        place = next((root for root in roots if root.is_dir()), roots[0])
        return Need(place=str(place), missing=_marks(place, manifest), **about)
    opened[name] = dataset
    missing, remarks = _lacks(dataset, sorted(wanted)), _not_as_published(dataset)
    place = str(dataset.root)
    return Need(place=place, missing=missing, remarks=remarks, opened=True, **about)


def _marks(root: Path, manifest: Manifest) -> list[str]:
    """Return what the layout of the published figures would have."""
    layout = manifest.layouts[0]
    absent = [mark for mark in layout.marks(root) if not (root / mark).exists()]
    sizes = ", ".join(f"{n:,} {split}" for split, n in manifest.expected().items())
    images = f"{root} (the {manifest.splits.unit}: {sizes})" if sizes else str(root)
    return [*(str(root / mark) for mark in absent), images]


def _lacks(dataset: Dataset, wanted: Iterable[tuple[str, Split]]) -> list[str]:
    """Return what the suite reads of a data set and is not there: splits, files, images."""
    missing: list[str] = []
    paths: dict[Path, None] = {}
    for kind, split in wanted:
        try:
            entries = getattr(dataset, kind)(split)
        except UserError as error:
            missing.append(error.message)
        else:
            paths.update(dict.fromkeys(entry.path for entry in entries))
    missing += [str(path) for path in absent_files(list(paths))]
    return list(dict.fromkeys(missing))


def _not_as_published(dataset: Dataset) -> list[str]:
    """Say where a data set is read, but not by the split that the published figures have."""
    manifest, root = dataset.manifest, dataset.root
    if not manifest.expected():
        return []
    first = manifest.layouts[0]
    absent = [mark for mark in first.marks(root) if not (root / mark).exists()]
    if dataset.layout == first or not absent or first.kind == dataset.layout.kind:
        return []
    return [
        f"read as {dataset.layout.title!r}; published figures are on {manifest.splits.source},"
        f" for which {', '.join(absent)} is missing"
    ]


def _encoder_need(name: str, checkpoint: str) -> Need:
    from ...pipeline.encoders.known import where_are_weights

    found = where_are_weights(name, checkpoint)
    return Need("encoder", found.name, found.name, found.place, found.missing, [], found.licence,
                found.get)  # fmt: skip


def _language_models(suite: Suite) -> list[Need]:
    """Return the language models of the suite's tasks, each once."""
    from ...pipeline.prompts.models import where_is_model

    tasks = {task for job in suite.jobs for task in job.tasks}
    revisions: dict[str, str] = {}
    if "classification" in tasks and suite.generation.engine != "openai":
        revisions[suite.generation.model] = suite.generation.revision
    if "captioning" in tasks:
        revisions.setdefault(suite.captioning.language_model, "")
    if "vqa" in tasks:
        revisions.setdefault(suite.vqa.language_model, "")
    needs: dict[str, Need] = {}
    for spec, revision in revisions.items():
        found = where_is_model(spec, revision)
        needs[found.name] = Need("language model", found.name, found.name, found.place,
                                 found.missing, [], found.licence, found.get)  # fmt: skip
    return list(needs.values())

"""The run folder: everything a later reader needs to trust, repeat or use a result.

``config.yaml`` (resolved), ``environment.json``, ``results/<task>.*``, ``metrics.jsonl`` and
``adapter.safetensors`` with ``adapter_config.json``; made of them at the end (:mod:`.finish`):
``results.json`` with all tables, ``README.md`` (model card) and ``report.html``.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.errors import UserError
from ..pipeline.files import write_json, write_text, writing
from ..pipeline.paths import is_there
from ..pipeline.progress import step
from ..pipeline.provenance import installed_versions
from ..pipeline.settings import read_source
from ..pipeline.store import read_record, read_tensors, write_record, write_tensors
from .run_classes import check_run_classes

if TYPE_CHECKING:
    import torch

    from ..pipeline.config import Section
    from .results import Results

_PACKAGES = (
    "aape", "torch", "torchvision", "open_clip_torch", "transformers", "vllm", "faiss-cpu",
    "faiss-gpu", "pyarrow", "duckdb", "numpy", "timm", "ray",
)  # fmt: skip

_SUMMARIES = ("report.html", "README.md", "results.json")
_BEGINNINGS = ("config.yaml", "environment.json", "metrics.jsonl", "stages.json")


def environment() -> dict[str, Any]:
    """Return what the figures may depend on: versions, processor, accelerator, command line."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "packages": installed_versions(_PACKAGES),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def own_weights(encoder: str, recorded: str, given: str) -> str:
    """Return the file of encoder weights to read: the one given, never one that a run names.

    A run folder may come from somebody else, and reading weights is an act of trust.

    Raises:
        UserError: the run was made with local weights (``recorded``), and none are given.
    """
    from ..pipeline.encoders.folders import names_folder

    if (recorded or names_folder(encoder)) and not given:
        raise UserError(
            f"The run was made with local weights of {encoder}, and a run's own word for where"
            " weights lie is not taken.",
            "Give them with --checkpoint.",
        )
    return given


class RunFolder:
    """A folder with the products of one run; made if absent, never emptied."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._to_begin: tuple[Section, Sequence[str]] | None = None
        if is_there(self.path) and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, not a run folder.", "Name a folder instead.")

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run.

        Raises:
            UserError: there is no run at ``path``.
        """
        run = cls(path)
        if not is_there(run.path / "config.yaml"):
            raise UserError(
                f"{run.path} is not a run folder (it has no config.yaml).",
                "Make one with: aape train --bank BANK --out FOLDER.",
            )
        return run

    def start(self, config: Section, tasks: Sequence[str] = ()) -> None:
        """Write the resolved configuration and the environment.

        Where another configuration led to something, all stays as it is until :meth:`begin`,
        which the first product calls: what is refused or fails before must not cost a finished run.
        """
        known = self.path / "config.yaml"
        self._to_begin = (config, tasks)
        same = known.exists() and _without_marks(known) == _without_marks(config.to_yaml())
        if same or not known.exists() or not self._has_work():
            self.begin()

    def begin(self) -> None:
        """Take away what another configuration led to, and write the one that was started.

        Report, model card and the tables of its tasks go. Finished trainings stay; they are kept
        by all that decided them.
        """
        if self._to_begin is None:
            return
        (config, tasks), self._to_begin = self._to_begin, None
        known, text = self.path / "config.yaml", config.to_yaml()
        if known.exists() and _without_marks(known) != _without_marks(text):
            if self._has_work():
                step(
                    f"{self.path} held a run of another configuration: its results and report"
                    " are replaced. Finished trainings stay; --out FOLDER keeps both runs."
                )
            for name in _SUMMARIES:
                (self.path / name).unlink(missing_ok=True)
            for task in tasks:
                for path in (self.path / "results").glob(f"{task}.*"):
                    path.unlink()
        write_text(known, text)
        write_json(self.path / "environment.json", environment())

    @contextmanager
    def making(self) -> Iterator[None]:
        """Take a folder away again that was made for work which failed before any was finished."""
        was_there = self.path.exists()
        parent_was_there = self.path.parent.exists()
        try:
            yield
        except BaseException:
            if not was_there and self.path.is_dir() and not self._has_work():
                shutil.rmtree(self.path, ignore_errors=True)
                if not parent_was_there:
                    with suppress(OSError):  # others may have put something there
                        self.path.parent.rmdir()
            raise

    def _has_work(self) -> bool:
        """Say whether there is anything but what every run begins with."""
        files = (path for path in self.path.rglob("*") if path.is_file())
        return any(path.name not in _BEGINNINGS and path.suffix != ".lock" for path in files)

    def log(self, **values: Any) -> None:
        """Append one line to ``metrics.jsonl``."""
        path = self.path / "metrics.jsonl"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(values) + "\n")

    def results_path(self, task: str) -> Path:
        """Return where the table of ``task`` is kept."""
        return self.path / "results" / f"{task}.json"

    def save_results(self, results: Results) -> None:
        """Keep a table as JSON, and beside it as Markdown, CSV and LaTeX."""
        self.begin()
        path = self.results_path(results.task)
        results.save(path)
        write_text(path.with_suffix(".md"), results.to_markdown())
        write_text(path.with_suffix(".csv"), results.to_csv())
        write_text(path.with_suffix(".tex"), results.to_latex())

    def save_weights(self, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        """Write ``adapter.safetensors`` and ``adapter_config.json``, each whole or not at all."""
        self.begin()
        write_tensors(self.path / "adapter.safetensors", tensors, {"format": "pt"})
        write_record(self.path / "adapter_config.json", config)

    def load_weights(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Read what :meth:`save_weights` wrote.

        Raises:
            UserError: the run has no trained adapter, or its files are damaged.
        """
        path = self.path / "adapter.safetensors"
        if not path.exists() and self._is_of_captions():
            raise UserError(
                f"{self.path} is a run trained on captions: it has no classes.",
                f"Use it with: aape eval retrieval {self.path} (or captioning, vqa).",
            )
        if not path.exists():
            raise UserError(
                f"{self.path} has no trained adapter.",
                "Train first: aape train, or save one: Classifier.save.",
            )
        return read_tensors(path)[0], read_record(self.path / "adapter_config.json")

    def _is_of_captions(self) -> bool:
        config = self.path / "config.yaml"
        return config.is_file() and read_source(config).get("task") == "captions"

    def load_classifier(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Read the same of a run that tells classes apart.

        Raises:
            UserError: as :meth:`load_weights`, the run does something else, or the two do not
                belong together.
        """
        tensors, about = self.load_weights()
        if about.get("kind") != "classification":
            raise UserError(
                f"{self.path} has no adapter of classification.",
                "Make one with: aape train --bank BANK --protocol fewshot.",
            )
        check_run_classes(about, tensors)
        return tensors, about


def _without_marks(source: Path | str) -> list[str]:
    """Return the lines of a configuration that say something."""
    text = (
        source.read_text(encoding="utf-8", errors="replace") if isinstance(source, Path) else source
    )
    return [line for line in text.splitlines() if not line.startswith("#")]

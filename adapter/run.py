"""The run folder: everything a later reader needs to trust, repeat or use a result.

``config.yaml`` (resolved), ``environment.json``, ``results.json`` or ``results/<task>.json``,
``metrics.jsonl``, ``adapter.safetensors`` with ``adapter_config.json``, ``README.md`` (model card)
and ``report.html``.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.errors import UserError
from ..pipeline.files import write_json, write_text
from ..pipeline.provenance import installed_versions
from ..pipeline.store import read_record, read_tensors, write_record, write_tensors

if TYPE_CHECKING:
    import torch

    from ..pipeline.config import Section
    from .results import Results

_PACKAGES = (
    "aape", "torch", "torchvision", "open_clip_torch", "transformers", "vllm", "faiss-cpu",
    "faiss-gpu", "pyarrow", "duckdb", "numpy", "timm", "ray",
)  # fmt: skip


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
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, not a run folder.", "Choose another --out.")

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run.

        Raises:
            UserError: there is no run at ``path``.
        """
        run = cls(path)
        if not (run.path / "config.yaml").exists():
            raise UserError(
                f"{run.path} is not a run folder (it has no config.yaml).",
                "Make one with: aape train --bank BANK --out FOLDER.",
            )
        return run

    def start(self, config: Section) -> None:
        """Write the resolved configuration and the environment."""
        write_text(self.path / "config.yaml", config.to_yaml())
        write_json(self.path / "environment.json", environment())

    def log(self, **values: Any) -> None:
        """Append one line to ``metrics.jsonl``."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")

    def results_path(self, task: str) -> Path:
        """Return where the table of ``task`` is kept."""
        return self.path / "results" / f"{task}.json"

    def save_results(self, results: Results) -> None:
        """Keep a table as JSON, and beside it as Markdown, CSV and LaTeX."""
        path = self.results_path(results.task)
        results.save(path)
        write_text(path.with_suffix(".md"), results.to_markdown())
        write_text(path.with_suffix(".csv"), results.to_csv())
        write_text(path.with_suffix(".tex"), results.to_latex())

    def save_weights(self, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        """Write ``adapter.safetensors`` and ``adapter_config.json``, each whole or not at all."""
        write_tensors(self.path / "adapter.safetensors", tensors, {"format": "pt"})
        write_record(self.path / "adapter_config.json", config)

    def load_weights(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Read what :meth:`save_weights` wrote.

        Raises:
            UserError: the run has no trained adapter, or its files are damaged.
        """
        path = self.path / "adapter.safetensors"
        if not path.exists():
            raise UserError(f"{self.path} has no trained adapter.", "Run aape train first.")
        return read_tensors(path)[0], read_record(self.path / "adapter_config.json")

"""What the verbs ``generate-prompts`` and ``import-prompts`` do, once their words are parsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..config import GenerationConfig
from ..datasets.manifest import Manifest, Query
from ..errors import UserError, unknown_name
from ..settings import Assignments, Source, origin_of, read_source, settle

if TYPE_CHECKING:
    from ..encoders.base import Encoder
    from .importing import ImportReport


@dataclass(frozen=True)
class Plan:
    """Data sets, where their banks go, and how their prompts are made."""

    manifests: list[Manifest]
    banks: list[Path]
    config: GenerationConfig
    queries: list[Query] | None
    control: str
    source: Path | None

    def run(self, encoder: str | Encoder = "auto", checkpoint: str = "") -> list[dict[str, Any]]:
        """Make the banks; returns path, prompts and verdicts of each.

        Raises:
            UserError: see :func:`~aape.pipeline.prompts.generate.generate_prompts`.
        """
        from .generate import generate_banks
        from .importing import import_prompts
        from .waffle import make_waffle

        loaded = named_encoder(encoder, checkpoint)
        if self.source is not None:
            verdicts = self.config.verdicts
            for manifest, bank in zip(self.manifests, self.banks):
                import_prompts(self.source, manifest, bank, encoder=loaded, verdicts=verdicts)
        elif self.control:
            for manifest, bank in zip(self.manifests, self.banks):
                make_waffle(manifest, bank, self.config, encoder=loaded)
        else:
            generate_banks(
                self.manifests, self.banks, self.config, encoder=loaded, queries=self.queries
            )
        return [summary(bank) for bank in self.banks]


def plan(
    datasets: Sequence[str],
    *,
    every: bool = False,
    config: Source = None,
    out: Path | None = None,
    queries: Path | Literal["auto"] | None = None,
    control: str = "",
    source: Path | None = None,
    options: Mapping[str, Any] | None = None,
    settings: Assignments = (),
) -> Plan:
    """Join the words of the command line with the configuration file; the words win.

    ``options`` are settings by dotted name (``"server.base_url"``); empty ones are left out. Of
    several data sets, ``out`` is the folder of the banks. ``queries`` are a file, or ``auto``: the
    language model writes them from the sentence ``about``.

    Raises:
        UserError: no data set, an unknown one, or words that do not go together.
    """
    from ..datasets import known_datasets, load_manifest
    from .requests import read_queries

    if every and datasets:
        raise UserError("--all and --dataset exclude each other.")
    if not every and not datasets:
        raise UserError("Which data set?", f"Known: {', '.join(known_datasets())}; or --all.")
    names = known_datasets() if every else list(dict.fromkeys(datasets))
    manifests = [load_manifest(name) for name in names]
    if every:
        manifests = [manifest for manifest in manifests if manifest.classes]
    if control not in ("", "waffle"):
        raise unknown_name("control", control, ["waffle"])
    values = {name: value for name, value in (options or {}).items() if value not in ("", None)}
    if values.get("engine") == "import":
        values.pop("engine")
        if source is None:
            raise UserError("The engine import needs a file.", "Name it with --from.")
    elif source is not None:
        raise UserError("--from needs --engine import.")
    if source is not None and len(manifests) > 1:
        raise UserError("One file cannot describe several data sets.")
    known = read_source(config, "generation")
    generation = settle(
        GenerationConfig, known, values, settings, section="generation", origin=origin_of(config)
    )
    _check_queries(queries, generation, source, control)
    return Plan(
        manifests,
        _bank_paths(manifests, out, ".waffle.bank.parquet" if control else ".bank.parquet"),
        generation,
        read_queries(queries) if isinstance(queries, Path) else None,
        control,
        source,
    )


def _check_queries(
    queries: Path | Literal["auto"] | None,
    config: GenerationConfig,
    source: Path | None,
    control: str,
) -> None:
    """Stop at words about queries that would not be read, or contradict each other."""
    if queries == "auto" and not config.about.strip():
        raise UserError(
            "From what is the language model to write its queries?",
            'Say in one sentence what the photos are: --about "photos of mushrooms in forests".',
        )
    if isinstance(queries, Path) and config.about:
        raise UserError(
            "--queries FILE and --about exclude each other.",
            "With --queries auto the language model writes the queries from --about.",
        )
    worded = config.about or config.contrast.by != "off" or config.other_names
    if worded and (source is not None or control):
        raise UserError(
            "Own queries, contrasts and other names come from a language model, and none is asked.",
            "Leave out --about, --contrast and --other-names, or --from and --control.",
        )


def _bank_paths(manifests: Sequence[Manifest], out: Path | None, ending: str) -> list[Path]:
    if len(manifests) == 1 and out is not None and not out.is_dir():
        if out.suffix != ".parquet":
            raise UserError(f"{out} is no name for a bank.", "A bank is a .parquet file.")
        return [out]
    if out is not None and out.suffix == ".parquet":
        raise UserError("--out must be a folder for several data sets.")
    folder = out or Path()
    return [folder / f"{manifest.name}{ending}" for manifest in manifests]


def named_encoder(name: str | Encoder, checkpoint: str) -> Encoder | None:
    """Return the encoder asked for; None leaves the default one to be loaded when needed."""
    if not isinstance(name, str):
        return name
    if name == "auto" and not checkpoint:
        return None
    from ..encoders import load_encoder

    return load_encoder(name, checkpoint=checkpoint)


def summary(bank: Path) -> dict[str, Any]:
    """Return the path of a bank and how many prompts have which verdict."""
    from collections import Counter

    from ..bank import PromptBank

    opened = PromptBank.open(bank)
    counts = Counter(opened.table.column("verdict").to_pylist())
    return {
        "path": str(bank),
        "prompts": len(opened),
        "verdicts": dict(counts.most_common()),
    }


def import_file(
    file: Path,
    manifest: Manifest,
    out: Path | None,
    kind: str,
    allow_unmatched: bool,
    encoder: str,
    checkpoint: str,
) -> ImportReport:
    """Import one published file: see :func:`~aape.pipeline.prompts.importing.import_prompts`.

    ``out`` is the bank, or the folder in which it gets its usual name.
    """
    from .importing import import_prompts

    return import_prompts(
        file,
        manifest,
        _bank_paths([manifest], out, ".bank.parquet")[0],
        kind=kind,
        allow_unmatched=allow_unmatched,
        encoder=named_encoder(encoder, checkpoint),
    )

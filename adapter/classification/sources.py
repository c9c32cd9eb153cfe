"""What a run of classification is trained on, opened as its configuration names it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipeline.bank.folder import bank_digest
from ...pipeline.errors import UserError
from ...pipeline.files import hash_file
from ...pipeline.paths import is_plain_name
from ...pipeline.progress import step
from ..baselines import choose_baselines
from ..config import Config
from .bank_source import BankSource
from .draws import Source
from .feature_file import FileSource

if TYPE_CHECKING:
    from ...pipeline.bank import PromptBank
    from ...pipeline.encoders.base import Encoder


def open_source(config: Config, encoder: Encoder | None = None) -> tuple[Source, Encoder | None]:
    """Open what the configuration trains on, with its encoder unless one is given.

    Raises:
        UserError: neither a bank nor features are named, or they do not fit together.
    """
    data = config.data
    if not data.bank and not data.features:
        raise UserError(
            "Nothing to train on: neither a bank nor a file of features was named.",
            "Give --bank BANK (aape generate-prompts makes one) or --features FILE.",
        )
    from ...pipeline.bank import PromptBank

    bank = PromptBank.open(data.bank) if data.bank else None
    if data.features:
        return FileSource(data.features, bank, repeat=data.repeat_images), None
    assert bank is not None
    return _open_bank(bank, data.dataset, data.root, config, encoder)


def _open_bank(
    bank: PromptBank, name: str, root: str, config: Config, encoder: Encoder | None
) -> tuple[BankSource, Encoder]:
    from ...pipeline.datasets import open_dataset
    from ...pipeline.embed.spread import open_encoder

    chosen = bank.metadata.of(name).dataset
    if not is_plain_name(chosen):  # a path would have any YAML file read as a manifest
        raise UserError(f"The bank names its data set {chosen!r}, which is no plain name.")
    dataset = open_dataset(chosen, Path(root) if root else None)
    for remark in dataset.contents.remarks:
        step(f"{dataset.manifest.name}: {remark}")
    if encoder is None:
        wanted = config.encoder.name
        wanted = bank.metadata.encoder_id if wanted == "auto" else wanted
        encoder = open_encoder(config.encoder, wanted)
    source = BankSource(
        bank,
        dataset,
        encoder,
        views=config.recipe.views,
        repeat=config.data.repeat_images,
        before=any(entry.before for entry in choose_baselines(config.evaluation.baselines)),
        workers=config.encoder.workers,
        batch_size=config.encoder.batch_size,
        strict=config.encoder.strict,
    )
    return source, encoder


def open_target(name: str, config: Config, encoder: Encoder | None) -> Source:
    """Open a target: a bank (``*.parquet``) or a file of features (``*.safetensors``)."""
    from ...pipeline.bank import PromptBank

    if name.endswith(".safetensors"):
        return FileSource(name)
    if encoder is None:
        raise UserError(
            f"The target {name!r} is a bank, but the source is a file of features.",
            "Name targets as files of features too.",
        )
    return _open_bank(PromptBank.open(name), "", "", config, encoder)[0]


def origin_of(source: Source, config: Config) -> dict[str, Any]:
    """Return what an adapter says of its source: bank, checksums, and templates for later names."""
    data = config.data
    origin: dict[str, Any] = {"bank": data.bank, "template": "", "ensemble": []}
    if isinstance(source, BankSource):
        manifest = source.images.manifest
        every = list(dict.fromkeys([*manifest.templates, *manifest.ensemble]))
        origin |= {"template": manifest.templates[0], "ensemble": every}
    if data.bank:
        origin["bank_sha256"] = bank_digest(data.bank)
    if data.features:
        origin["features_sha256"] = hash_file(data.features)
    return origin

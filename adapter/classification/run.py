"""A run of classification: open what its configuration names, evaluate, write the folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipeline.datasets import base_new_classes
from ...pipeline.errors import UserError
from ...pipeline.files import exclusive, hash_file
from ...pipeline.paths import is_plain_name
from ...pipeline.progress import step
from ..baselines import choose_baselines
from ..config import Config
from ..finish import finish_run
from ..results import Results
from ..run import RunFolder
from ..shots import in_names
from .bank_source import BankSource
from .draws import Source
from .evaluate import evaluate_classification
from .feature_file import FileSource
from .protocols import INCREMENTAL, load_protocol

if TYPE_CHECKING:
    from ...pipeline.encoders.base import Encoder


def run_classification(
    config: Config,
    out: str | Path,
    work: Path | None = None,
    *,
    encoder: Encoder | None = None,
) -> Results:
    """Train and evaluate as configured; finished work in ``out`` (or ``work``) is reused.

    ``encoder`` is the configured one where it is open already: a large one takes long to load.

    Writes the run folder: configuration, environment, ``results/classification.*``, the learning
    curves, the adapter of the first seed, the model card and the report.

    Raises:
        UserError: something named in the configuration is absent or does not fit.
    """
    _check_names(config)
    if config.data.unlabelled:
        from .unlabelled import run_unlabelled

        return run_unlabelled(config, out)
    if config.evaluation.shots == 0 or config.data.semi:
        raise UserError(
            "Without shots, or with --semi, there must be photos without labels to learn from.",
            "Name them: --unlabelled FOLDER.",
        )
    if config.evaluation.protocol.partition("/")[0] == INCREMENTAL:
        from .incremental import run_incremental

        return run_incremental(config, out)
    run = RunFolder(out)
    device = _device(config)
    # opened before the lock, so that a misspelt name leaves no folder behind
    source, encoder = open_source(config, encoder)
    targets = [_open_target(name, config, encoder) for name in config.data.targets]
    _say_what_is_not_trained(source, config.evaluation.protocol)
    with run.making(), exclusive(run.path / "run", "training in"):
        run.start(config, ["classification"])
        results = evaluate_classification(
            source,
            config.recipe,
            config.evaluation,
            targets=targets,
            run=run,
            work=work,
            device=device,
        )
        tensors, about = run.load_weights()
        about |= {"bank": config.data.bank, **templates_of(source)}
        if config.data.bank:
            about["bank_sha256"] = hash_file(config.data.bank)
        if config.data.features:
            about["features_sha256"] = hash_file(config.data.features)
        run.save_weights(tensors, about)
        run.save_results(results)
        finish_run(run)
    step(f"Run folder: {run.path}")
    return results


def _check_names(config: Config) -> None:
    """Stop where names are to be chosen and nothing would choose them."""
    if config.evaluation.names == "given":
        return
    protocol = config.evaluation.protocol.partition("/")[0]
    if config.data.unlabelled or protocol == INCREMENTAL:
        where = "photos without labels" if config.data.unlabelled else f"the protocol {protocol}"
        raise UserError(f"No names are chosen with {where}.", "Leave out --names best.")


def _say_what_is_not_trained(source: Source, protocol: str) -> None:
    """Say that a protocol holds classes back, which is a surprise where a classifier is wanted."""
    rule = load_protocol(protocol)
    if rule.trains_on == "all":
        return
    names = source.class_names
    base, new = base_new_classes(len(names))
    some = ", ".join(names[i] for i in new[:5]) + (" …" if len(new) > 5 else "")
    step(
        f"Protocol {rule.name} trains on {len(base)} of {len(names)} classes and holds {len(new)}"
        f" back as new ones: {some}. To train all: --protocol fewshot --shots all."
    )


def default_folder(config: Config) -> Path:
    """Return where a run goes when no folder is named: what was trained on, and how."""
    data, evaluation = config.data, config.evaluation
    name = data.dataset or Path(data.features or data.bank).name.split(".")[0]
    protocol = evaluation.protocol
    if data.unlabelled:
        protocol = "semi" if data.semi else "unlabelled"
    shots = 0 if protocol == "unlabelled" else evaluation.shots
    parts = [name, protocol, in_names(shots), config.recipe.name]
    return Path("runs") / "-".join(parts)


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
    bank, name: str, root: str, config: Config, encoder: Encoder | None
) -> tuple[BankSource, Encoder]:
    from ...pipeline.datasets import open_dataset
    from ...pipeline.encoders import load_encoder

    chosen = bank.metadata.of(name).dataset
    if not is_plain_name(chosen):  # a path would have any YAML file read as a manifest
        raise UserError(f"The bank names its data set {chosen!r}, which is no plain name.")
    dataset = open_dataset(chosen, Path(root) if root else None)
    for remark in dataset.contents.remarks:
        step(f"{dataset.manifest.name}: {remark}")
    if encoder is None:
        wanted = config.encoder.name
        wanted = bank.metadata.encoder_id if wanted == "auto" else wanted
        encoder = load_encoder(wanted, config.encoder.checkpoint, config.encoder.device)
    source = BankSource(
        bank,
        dataset,
        encoder,
        views=config.recipe.views,
        repeat=config.data.repeat_images,
        before=any(entry.id == "prolip" for entry in choose_baselines(config.evaluation.baselines)),
        workers=config.encoder.workers,
        batch_size=config.encoder.batch_size,
        strict=config.encoder.strict,
    )
    return source, encoder


def _open_target(name: str, config: Config, encoder: Encoder | None) -> Source:
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


def templates_of(source: Source) -> dict[str, Any]:
    """Return what a name is put into, for classes that are named later."""
    if not isinstance(source, BankSource):
        return {"template": "", "ensemble": []}
    manifest = source.images.manifest
    every = list(dict.fromkeys([*manifest.templates, *manifest.ensemble]))
    return {"template": manifest.templates[0], "ensemble": every}


def _device(config: Config) -> str:
    from ...pipeline.encoders.base import pick_device

    return str(pick_device(config.encoder.device))

"""A run of classification: open what its configuration names, evaluate, write the folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipeline.datasets import base_new_classes
from ...pipeline.errors import UserError
from ...pipeline.files import exclusive
from ...pipeline.progress import step
from ..config import Config
from ..finish import finish_run
from ..results import Results
from ..run import RunFolder
from ..shots import in_names
from .draws import Source
from .evaluate import evaluate_classification
from .protocols import INCREMENTAL, load_protocol
from .sources import open_source, open_target, origin_of

if TYPE_CHECKING:
    from torch import Tensor

    from ...pipeline.encoders.base import Encoder

    Trained = tuple[Results, dict[str, Tensor], dict[str, Any]]
    """A table, and the tensors and the description of the adapter that the run keeps."""


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
    if not config.data.unlabelled and (config.evaluation.shots == 0 or config.data.semi):
        raise UserError(
            "Without shots, or with --semi, there must be photos without labels to learn from.",
            "Name them: --unlabelled FOLDER.",
        )
    run = RunFolder(out)
    # opened before the lock, so that a misspelt name leaves no folder behind
    source, encoder = open_source(config, encoder)
    train = _training(config, source, encoder, run, work)
    with run.making(), exclusive(run.path / "run", "training in"):
        run.start(config, ["classification"])
        results, tensors, about = train()
        run.save_weights(tensors, about | origin_of(source, config))
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


def _training(
    config: Config, source: Source, encoder: Encoder | None, run: RunFolder, work: Path | None
) -> Callable[[], Trained]:
    """Return what is to be done: learn without labels, in sessions, or from shots by a protocol."""
    if config.data.unlabelled:
        from .photo_pool import read_pool
        from .unlabelled import train_unlabelled

        pool = read_pool(config.data.unlabelled, source, encoder)
        return partial(train_unlabelled, config, source, pool, run)
    if config.evaluation.protocol.partition("/")[0] == INCREMENTAL:
        from .incremental import evaluate_incremental

        return partial(evaluate_incremental, source, config.recipe, config.evaluation)
    targets = [open_target(name, config, encoder) for name in config.data.targets]
    _say_what_is_not_trained(source, config.evaluation.protocol)
    return partial(_train, config, source, targets, run, work)


def _train(
    config: Config, source: Source, targets: list[Source], run: RunFolder, work: Path | None
) -> Trained:
    from ...pipeline.encoders.base import pick_device

    results = evaluate_classification(
        source,
        config.recipe,
        config.evaluation,
        targets=targets,
        run=run,
        work=work,
        device=str(pick_device(config.encoder.device)),
    )
    return results, *run.load_weights()


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

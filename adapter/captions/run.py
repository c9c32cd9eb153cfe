"""The run folder of the caption tasks: train once, evaluate retrieval, captioning, answering."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...pipeline.datasets import Dataset, open_dataset
from ...pipeline.embed.spread import open_encoder
from ...pipeline.encoders import load_encoder
from ...pipeline.errors import UserError
from ...pipeline.files import exclusive, hash_value
from ...pipeline.progress import step
from ...pipeline.ranks import Group, joined
from ..finish import finish_run
from ..results import MethodResult, Results
from ..run import RunFolder, own_weights
from .captioning import evaluate_captioning
from .choose_query import keep_query
from .contrasts import evaluate_contrasts
from .data import training_and_validation
from .retrieval import evaluate_retrieval
from .settings import CAPTIONS_CONFIG, CaptioningConfig, CaptionRunConfig, VqaConfig
from .train import CaptionAdapter, train_captions
from .vqa import evaluate_vqa

if TYPE_CHECKING:
    from ...pipeline.encoders.base import Encoder


def run_captions(config: CaptionRunConfig, out: Path | None = None) -> Results:
    """Train one generator a seed in a run folder; return validation recall before and after.

    Processes that ``torchrun`` started share the work; the first alone writes into the folder,
    which lies on a disk that all of them see.

    Raises:
        UserError: the data set has no captions, or its files are not here.
    """
    with joined() as processes:
        return _run(config, out, processes)


def _run(config: CaptionRunConfig, out: Path | None, processes: Group) -> Results:
    dataset = open_dataset(config.dataset, Path(config.root) if config.root else None)
    folder = RunFolder(out or Path("runs") / f"{dataset.manifest.name}-captions")
    train, val = training_and_validation(dataset)
    whole = len(dataset.captions("train"))
    held_out = f"no validation split: {len(val)} of {whole} training images are held out for it"
    notes = [held_out] if len(train) < whole else []
    for note in (*dataset.contents.remarks, *notes):
        step(note)
    config = config.model_copy(update=_places(config))
    encoder = open_encoder(config.encoder)
    with ExitStack() as writing:
        if processes.first:
            writing.enter_context(folder.making())
            writing.enter_context(exclusive(folder.path / "captions", "training in"))
            kept = config.encoder.model_copy(update={"name": encoder.id})
            folder.start(
                config.model_copy(update={"encoder": kept}),
                ["captions", "retrieval", "contrasts", "captioning", "vqa"],
            )
        processes.wait()
        start = MethodResult("h(x) before training", [])
        trained = MethodResult("h(x)", [], group="ours")
        adapters = []
        for seed in config.seeds:
            settings = config.captions.model_copy(update={"seed": seed})
            adapter = train_captions(
                dataset, encoder, config=settings, run=folder, strict=config.encoder.strict
            )
            adapters.append(adapter)
            history = adapter.details["val_recall"]
            start.seeds.append({"seed": seed, "mean R": history[0]})
            trained.seeds.append({"seed": seed, "mean R": max(history)})
            trained.parameters = adapter.parameters
        query = keep_query(folder, dataset, encoder, adapters)
    results = Results(
        task="captions",
        protocol="captions/1",
        dataset=dataset.manifest.name,
        encoder=encoder.id,
        metrics=["mean R"],
        methods=[start, trained],
        best="mean R",
        title="Validation recall of the generator trained on captions",
        units={"mean R": "%"},
        notes=[*notes, query.sentence(), f"next: aape eval retrieval {folder.path}"],
    )
    if processes.first:
        folder.save_results(results)
        finish_run(folder)
    return results


def _places(config: CaptionRunConfig) -> dict[str, str]:
    """Return data set and root so that they are found from any folder."""
    manifest = Path(config.dataset)
    return {
        "dataset": str(manifest.resolve()) if manifest.is_file() else config.dataset,
        "root": str(Path(config.root).resolve()) if config.root else "",
    }


def evaluate_run(
    path: Path,
    task: Literal["retrieval", "contrasts", "captioning", "vqa"],
    *,
    dataset: str = "",
    root: str = "",
    settings: dict[str, Any] | None = None,
    limit: int = 0,
    checkpoint: str = "",
    strict: bool = False,
) -> Results:
    """Evaluate a task with the generators of a run; what is finished is reused.

    Args:
        dataset: test data, if not what the run was trained on.
        settings: values of :class:`CaptioningConfig` or :class:`VqaConfig`.
        limit: test images or questions to use; 0 is all.
        checkpoint: local weights of the encoder, where the run was made with such.
        strict: stop at a photo that cannot be read, instead of leaving it out.

    Raises:
        UserError: there is no such run, or it was made by another task.
    """
    folder = RunFolder(path)
    config, adapters = open_adapters(folder)
    place = config.encoder
    weights = own_weights(place.name, place.checkpoint, checkpoint)
    encoder: Encoder = load_encoder(place.name, weights, place.device)
    where = root or (config.root if dataset in ("", config.dataset) else "")
    data = open_dataset(dataset or config.dataset, Path(where) if where else None)
    for remark in data.contents.remarks:
        step(remark)
    same_name = data.manifest.name == adapters[0].dataset
    elsewhere = bool(root) and Path(root).resolve() != Path(config.root).resolve()
    other = elsewhere or not same_name
    # tables and prefixes of other data must not overwrite those of the run's own
    run = RunFolder(folder.path / _name_of(data, same_name)) if other else folder
    source = _source(config, data, task) if other else None
    values = settings or {}
    with exclusive(folder.path / task, "evaluating"):
        if task == "retrieval":
            results = evaluate_retrieval(
                data, encoder, adapters, run=run, max_images=limit, source=source, strict=strict
            )
        elif task == "contrasts":
            results = evaluate_contrasts(data, encoder, adapters, run=run, strict=strict)
        elif task == "captioning":
            results = evaluate_captioning(
                data, encoder, adapters, run=run, max_images=limit, source=source, strict=strict,
                config=CaptioningConfig.parse(values, "What was set"),
            )  # fmt: skip
        else:
            results = evaluate_vqa(
                data, encoder, adapters, run=run, max_questions=limit, source=source, strict=strict,
                first_stage=folder,  # question sets share it, captioning's where settings are equal
                config=VqaConfig.parse(values, "What was set"),
            )  # fmt: skip
        finish_run(folder)
    return results


def _name_of(data: Dataset, same_name: bool) -> str:
    """Return a folder's name for the results on other data than the run's own."""
    name = data.manifest.name
    return f"{name}-{hash_value(str(data.root.resolve()))[:6]}" if same_name else name


def _source(config: CaptionRunConfig, data: Dataset, task: str) -> Dataset | None:
    """Return the run's own data set where ``data`` has no captions for what comes before the test.

    NoCaps has no training captions, DAQUAR none at all. A question set can do without.
    """
    if data.contents.captions.get("train") or task == "contrasts":
        return None
    try:
        return open_dataset(config.dataset, Path(config.root) if config.root else None)
    except UserError:
        if task == "vqa":
            return None
        raise


def open_adapters(folder: RunFolder) -> tuple[CaptionRunConfig, list[CaptionAdapter]]:
    """Return the configuration and the generators of a run, one a seed.

    Raises:
        UserError: the run was not made by ``aape train-captions``, or is unfinished.
    """
    from ...pipeline.config import read_yaml

    path = folder.path / "config.yaml"
    within = folder.path / CAPTIONS_CONFIG
    if path.exists() and within.exists():  # a suite trains on labels and captions in one folder
        path = within
    make = "Make such a run with: aape train-captions --dataset NAME --out FOLDER."
    if not path.exists():
        raise UserError(f"{folder.path} is not a run folder (it has no config.yaml).", make)
    values = read_yaml(path)
    if not isinstance(values, dict) or values.get("task") != "captions":
        raise UserError(f"{folder.path} was not trained on captions.", make)
    config = CaptionRunConfig.parse(values, str(path))
    return config, [
        CaptionAdapter.load(folder.path / "captions" / f"seed-{seed}") for seed in config.seeds
    ]

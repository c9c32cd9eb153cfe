"""The verbs ``train``, ``sweep`` and ``eval classification`` as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import UserError
from ...pipeline.one_or_many import one_or_many, several
from ...pipeline.settings import Assignments, Source, assigned, origin_of, read_source, settle

if TYPE_CHECKING:
    from ..config import Config
    from ..method.recipe import Recipe
    from ..results import Results
    from ..shots import Shots

_OTHER_TASKS = {"captions": "aape train-captions"}


@one_or_many("target", split=("seeds", "control", "baselines"))
def train(
    source: str | Path = "",
    bank: str | Path = "",
    features: str | Path = "",
    shots: Shots | None = None,
    seeds: int | Sequence[int] = (),
    protocol: str = "",
    recipe: str | Recipe = "",
    distillation: float | None = None,
    control: str | Sequence[str] = (),
    baselines: str | Sequence[str] = (),
    target: str | Sequence[str] = (),
    new_classes: str = "",
    repeat_images: bool = False,
    init_seed: int | None = None,
    order_seed: int | None = None,
    dataset: str = "",
    root: str | Path = "",
    encoder: str = "",
    checkpoint: str | Path = "",
    device: str = "",
    out: str | Path | None = None,
    config: Source = None,
    settings: Assignments = (),
    strict: bool = False,
    unlabelled: str | Path = "",
    semi: bool = False,
    names: str = "",
) -> Results:
    """Train the adapter and compare it with every baseline on the same features and shots.

    What is left empty is as ``config`` says, else as ``aape options`` does: 16 shots, seeds 1, 2
    and 3, protocol ``base2new``, recipe ``default``, all baselines, the bank's own encoder.

    ``aape.train("photos/")`` does it all: the photos become a data set, a language model describes
    the classes, all classes are trained on all training photos, and ``details["summary"]`` of the
    results says in sentences what was done.

    Args:
        source: a folder of photos, a table of them, or the name of a data set; a bank or a file of
            features, too. bank: prompt bank; it knows data set and encoder. features: a file of
            cached features.
        shots: training images a class, or ``"all"``: every one. seeds: of the shots. protocol:
            ``fewshot``, ``base2new``, ``generalized``, ``cross-dataset``, ``domain``,
            ``incremental``.
        recipe: name, YAML file or recipe. distillation: λ, of recipes that are trained by
            gradient. control: rows with one thing changed.
        baselines: names, or ``all``, ``fast``, ``slow``, ``none``.
        target: banks or feature files that are only tested on.
        new_classes: ``bank`` (what it says of them), or ``name`` (the template alone).
        repeat_images: fill up classes with too few images.
        init_seed, order_seed: of weights and of batches, if not the shots'.
        dataset: one data set of a bank of several. root: folder of the images.
        encoder, checkpoint, device: instead of the bank's encoder; its local weights; where.
        out: the run folder. config: a file, such as the ``config.yaml`` of a run, or values.
        settings: ``{"evaluation.resamples": 0}``, or ``["evaluation.resamples=0"]``; they win.
        strict: stop at a photo that cannot be read; else it is left out, counted and named.
        unlabelled: photos without labels to learn from: a folder, a file of features, or ``train``.
        semi: use the shots beside them.
        names: ``given``, or ``best``: of the other names in the bank, those that the training
            photos of a class fit best.

    Raises:
        UserError: something named is absent or does not fit, or a setting would not be read.
    """
    kind = source_kind(source, bank, features)
    named = {"bank": bank, "features": features, kind: source}
    given = {
        "data.bank": str(named["bank"]) or None, "data.features": str(named["features"]) or None,
        "data.dataset": dataset or None, "data.root": str(root) or None,
        "data.targets": list(target) or None, "data.repeat_images": repeat_images or None,
        "data.unlabelled": str(unlabelled) or None, "data.semi": semi or None,
        "encoder.name": encoder or None, "encoder.device": device or None,
        "encoder.strict": strict or None,
        "evaluation.shots": shots, "evaluation.seeds": several(seeds) or None,
        "evaluation.protocol": protocol or None, "evaluation.controls": list(control) or None,
        "evaluation.baselines": list(baselines) or None, "evaluation.init_seed": init_seed,
        "evaluation.order_seed": order_seed, "evaluation.new_classes": new_classes or None,
        "evaluation.names": names or None,
    }  # fmt: skip
    prepared = None
    if kind == "photos":
        from .own_photos import DEFAULTS, of_prepared, prepare, sentences, split_settings

        evaluation = DEFAULTS | (read_source(config).get("evaluation") or {})
        settings, generation = split_settings(assigned(settings))
        # what training would refuse is refused before descriptions are made, which takes minutes
        configure(config, given, settings, recipe=recipe, distillation=distillation,
                  checkpoint=checkpoint)  # fmt: skip
        prepared = prepare(
            source, root, encoder, checkpoint, shots or evaluation["shots"], strict, generation
        )
        given = of_prepared(prepared, evaluation, given)
    chosen = configure(
        config, given, settings, recipe=recipe, distillation=distillation, checkpoint=checkpoint
    )
    from .run import default_folder, run_classification  # late: a misspelt setting is told at once

    folder = Path(out or default_folder(chosen))
    results = run_classification(chosen, folder)
    if prepared is not None:
        results.details["run"] = str(folder)
        results.details["summary"] = sentences(prepared, results, folder)
    return results


def source_kind(source: str | Path, bank: str | Path, features: str | Path) -> str:
    """Say what a source is: ``bank``, ``features``, ``photos``, or nothing where none is named.

    Raises:
        UserError: a bank or features are named beside it.

    >>> source_kind("cars.bank.parquet", "", ""), source_kind("photos/", "", "")
    ('bank', 'photos')
    """
    if not str(source):
        return ""
    if str(bank) or str(features):
        raise UserError(
            f"Train on {source}, or on {bank or features}?",
            "Name one: photos, --bank or --features.",
        )
    name = str(source).lower()
    if name.endswith(".safetensors"):
        return "features"
    return "bank" if name.endswith(".bank.parquet") else "photos"


@one_or_many("sources", "recipes", split=("shots", "seeds", "baselines", "control"))
def sweep(
    sources: str | Path | Sequence[str | Path],
    shots: Shots | Sequence[Shots] = (),
    seeds: int | Sequence[int] = (),
    recipes: str | Recipe | Sequence[str | Recipe] = (),
    protocol: str = "",
    baselines: str | Sequence[str] = (),
    control: str | Sequence[str] = (),
    repeat_images: bool = False,
    processes: int = 0,
    ray: str | None = None,
    device: str = "",
    out: str | Path = "runs/sweep",
    config: Source = None,
    settings: Assignments = (),
) -> list[Results]:
    """Train on many data sets and seeds in parallel; a finished training is never repeated.

    Its processes import the script that calls it: a script does its work below
    ``if __name__ == "__main__":``.

    Args:
        sources: banks and feature files. shots: several make learning curves. recipes: several are
            compared. The others as for :func:`train`.
        processes: at once; 0 is one a processor. ray: run on a Ray cluster instead: ``host:port``,
            ``auto``, or ``local`` to start one. out: folder of all runs.

    Returns:
        One table a source, number of shots and recipe; then the averages over sources.

    Raises:
        UserError: a part failed; those that finished are kept.
    """
    given = {
        "evaluation.seeds": several(seeds) or None, "evaluation.protocol": protocol or None,
        "evaluation.controls": list(control) or None,
        "evaluation.baselines": list(baselines) or None,
        "data.repeat_images": repeat_images or None, "encoder.device": device or None,
    }  # fmt: skip
    configs = []
    for recipe in several(recipes) or [""]:
        for number in several(shots) or [None]:
            for source in map(str, several(sources)):
                kind = "features" if source.endswith(".safetensors") else "bank"
                own = {"data.bank": "", "data.features": "", "data.dataset": ""}
                own |= {f"data.{kind}": source}
                values = given | own | {"evaluation.shots": number}
                configs.append(configure(config, values, settings, recipe=recipe))
    from ..sweep import sweep as run_sweep

    tables, averages = run_sweep(configs, Path(out), processes, "" if ray == "local" else ray)
    return [*tables, *averages]


@one_or_many("target", split=("baselines", "control"))
def eval_classification(
    run: str | Path,
    protocol: str = "",
    baselines: str | Sequence[str] = (),
    control: str | Sequence[str] = (),
    target: str | Sequence[str] = (),
    checkpoint: str | Path = "",
    config: Source = None,
    settings: Assignments = (),
    strict: bool = False,
) -> Results:
    """Evaluate a run again, or by another protocol; what is finished is reused.

    Args:
        run: a run folder of classification. protocol, baselines, control, target: other than the
            run's, as for :func:`train`. checkpoint: local weights of the run's encoder.
        config: a file with a section ``evaluation`` to use instead of the run's.
        settings, strict: as for :func:`train`.

    Raises:
        UserError: there is no such run, or something does not fit.
    """
    from ..known_sections import known_sections
    from ..run import RunFolder

    folder = RunFolder.open(run)
    values = read_source(folder.path / "config.yaml")
    _check_task(values, folder.path)
    if config is not None:
        values["evaluation"] = read_source(config, "evaluation", known_sections())
    given = {
        "evaluation.protocol": protocol or None, "evaluation.baselines": list(baselines) or None,
        "evaluation.controls": list(control) or None, "data.targets": list(target) or None,
        "encoder.strict": strict or None,
    }  # fmt: skip
    chosen = configure(values, given, settings, checkpoint=checkpoint, trusted=False)
    from .run import run_classification

    return run_classification(chosen, folder.path)


def configure(
    config: Source,
    given: Mapping[str, Any],
    settings: Assignments = (),
    *,
    recipe: str | Recipe = "",
    distillation: float | None = None,
    checkpoint: str | Path = "",
    trusted: bool | None = None,
) -> Config:
    """Return the configuration of a run from a file, options and assignments.

    Args:
        trusted: whether ``config`` may say where the encoder's weights lie; by default not where it
            is a file, which may come from somebody else.

    Raises:
        UserError: a name or a value is wrong, or a setting of the recipe would not be read.
    """
    from ..config import Config, refuse_unread
    from ..method.recipe import Recipe, load_recipe
    from ..run import own_weights

    values = read_source(config)
    _check_task(values, config)
    if trusted is None:
        trusted = not isinstance(config, str | Path)
    place = values.get("encoder")
    if isinstance(place, dict) and not trusted:
        recorded = str(place.get("checkpoint", ""))
        name = str(place.get("name", "the encoder"))
        place["checkpoint"] = own_weights(name, recorded, str(checkpoint))
    elif checkpoint:
        given = {**given, "encoder.checkpoint": str(checkpoint)}
    if recipe or "recipe" not in values:
        chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe or "default")
        values["recipe"] = chosen.model_dump(mode="json")
    elif isinstance(values["recipe"], str):
        values["recipe"] = load_recipe(values["recipe"]).model_dump(mode="json")
    given = {**given, "recipe.distillation": distillation}
    made = settle(Config, values, given, settings, origin=origin_of(config))
    asked = list(assigned(settings)) + ["recipe.distillation"] * (distillation is not None)
    refuse_unread(made.recipe, asked)
    return made


def _check_task(values: Mapping[str, Any], origin: Any) -> None:
    task = values.get("task", "classification")
    if "jobs" in values:
        raise UserError(
            f"{origin} is the configuration of a suite.", f"Run: aape eval all --suite {origin}."
        )
    if task in _OTHER_TASKS:
        raise UserError(
            f"{origin} is the configuration of a run of {task}.",
            f"Use: {_OTHER_TASKS[str(task)]}; or aape eval retrieval, captioning or vqa.",
        )

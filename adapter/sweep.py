"""Many runs at once: data sets × shots × recipes × seeds over parallel processes.

A unit is one data set with one number of shots and one seed: all recipes and baselines, so that
nothing is trained twice. Finished trainings lie in one folder, keyed by all they depend on; a
second sweep trains only what is new. When all units are done, each (data set, shots, recipe) gets
its run folder and table from them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np

from ..pipeline.errors import UserError
from ..pipeline.files import write_json
from ..pipeline.progress import bar
from .config import Config
from .curves import write_curves
from .metrics.accuracy import harmonic_mean
from .published import published_average
from .results import MethodResult, Results
from .shots import Shots, in_names, in_words

ELEVEN = 11  # data sets of the field's average
_AGAIN = 79  # exit status of a process in which the script called sweep again


@dataclass(frozen=True)
class _Unit:
    """One data set and one seed; one configuration a recipe."""

    name: str
    configs: tuple[Config, ...]
    out: Path


def sweep(
    configs: Sequence[Config], out: Path, processes: int = 0, ray: str | None = None
) -> tuple[list[Results], list[Results]]:
    """Run every configuration over all its seeds in parallel.

    Each process imports the script that calls this, so the script does its work below
    ``if __name__ == "__main__":``.

    Args:
        configs: one a data set, number of shots and recipe.
        out: run folders go to ``out/<data set>/<recipe>-<shots>shot``, finished trainings to
            ``out/work``, and with several numbers of shots the learning curves to ``out``.
        processes: at once; 0 is one a processor. Each computes with its share of the processors.
        ray: run on the Ray cluster of this address instead (``auto`` for the one of this machine,
            empty to start one). ``out``, banks and features must lie on a disk that all nodes see.

    Returns:
        One table a configuration, and one average over data sets a recipe and number of shots.

    Raises:
        UserError: a unit failed; those that finished are kept. Or the script lacks the guard.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(_AGAIN)  # the script is being imported by a process of its own sweep
    units = list(_units(configs, out))
    failed: list[str] = []
    with bar() as progress:
        task = progress.add_task("sweep", total=len(units))
        run = _in_processes(units, processes) if ray is None else _on_ray(units, ray)
        for unit, message in run:
            ended = "failed" if message else "done"
            progress.update(task, advance=1, description=f"sweep: {unit.name} {ended}")
            if message:
                failed.append(f"{unit.name}: {message}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(units)} parts of the sweep failed: {'; '.join(failed[:3])}",
            "Mend the cause and run the same command again: finished parts are reused.",
        )
    from .classification.run import run_classification

    tables = [run_classification(config, _folder(config, out), out / "work") for config in configs]
    groups: dict[str, list[Results]] = {}
    for config, table in zip(configs, tables):
        groups.setdefault(_run_name(config), []).append(table)
    averages = [average_tables(group) for group in groups.values()]
    for name, average in zip(groups, averages):
        average.title = f"average of {len(groups[name])} data sets, {name}"
        average.save(out / f"average-{name}.json")
    write_json(out / "sweep.json", {"runs": [str(_folder(config, out)) for config in configs]})
    if len({config.evaluation.shots for config in configs}) > 1:
        write_curves(tables, out)
    return tables, averages


def _data_name(config: Config) -> str:
    data = config.data
    return data.dataset or Path(data.features or data.bank).name.split(".")[0]


def _folder(config: Config, out: Path) -> Path:
    return out / _data_name(config) / _run_name(config)


def _run_name(config: Config) -> str:
    return f"{config.recipe.name}-{in_names(config.evaluation.shots)}"


def _units(configs: Sequence[Config], out: Path) -> Iterator[_Unit]:
    """Yield one unit a data set, number of shots and seed."""
    groups: dict[tuple[str, Shots], list[Config]] = {}
    for config in configs:
        groups.setdefault((_data_name(config), config.evaluation.shots), []).append(config)
    for (name, shots), group in groups.items():
        for seed in group[0].evaluation.seeds:
            one = []
            for config in group:
                evaluation = config.evaluation.model_copy(update={"seeds": [seed], "resamples": 0})
                one.append(config.model_copy(update={"evaluation": evaluation}))
            yield _Unit(f"{name}, {in_words(shots)}, seed {seed}", tuple(one), out)


def _in_processes(units: Sequence[_Unit], processes: int) -> Iterator[tuple[_Unit, str]]:
    """Run units in processes of this machine; yield each when it is done, and what went wrong."""
    processes = min(processes or os.cpu_count() or 1, len(units))
    threads = max(1, (os.cpu_count() or 1) // processes)
    context = _Spawn()
    lost: list[_Unit] = []
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        running = {pool.submit(_run_unit, unit, threads): unit for unit in units}
        for done in as_completed(running):
            try:
                message = done.result()
            except BrokenProcessPool:
                lost.append(running[done])
                continue
            yield running[done], message
    # the pool is closed: every process has its exit status
    if any(process.exitcode == _AGAIN for process in context.made):
        raise UserError(
            "Each process of a sweep runs the script that called it, and this script called it"
            " there again.",
            'Let the script do its work below: if __name__ == "__main__":',
        )
    for unit in lost:
        yield unit, "a process was killed, perhaps for want of memory: try fewer processes"


class _Spawn(SpawnContext):
    """Processes that are started anew, and remembered for how they end.

    Forked children of a process that has used torch may hang.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: list[SpawnProcess] = []

    def Process(self, *words: Any, **named: Any) -> SpawnProcess:
        self.made.append(SpawnProcess(*words, **named))
        return self.made[-1]


def _on_ray(units: Sequence[_Unit], address: str) -> Iterator[tuple[_Unit, str]]:
    """Run units as Ray tasks, each on one processor, and on one GPU where its device is one."""
    from ..pipeline.ray_cluster import join_cluster

    ray, started = join_cluster(address, "aape sweep --ray")
    try:
        running = {}
        for unit in units:
            gpus = 1 if unit.configs[0].encoder.device.startswith("cuda") else 0
            task = ray.remote(num_cpus=1, num_gpus=gpus)(_run_unit)
            running[task.remote(_absolute(unit), 1)] = unit
        while running:
            (done,), _ = ray.wait(list(running))
            try:
                message = ray.get(done)
            except ray.exceptions.RayError as error:
                message = str(error).strip().splitlines()[-1][:300]
            yield running.pop(done), message
    finally:
        if started:
            ray.shutdown()


def _absolute(unit: _Unit) -> _Unit:
    """Return the unit with full paths: a Ray worker has another working folder."""
    configs = []
    for config in unit.configs:
        data = config.data
        paths: dict[str, Any] = {
            name: str(Path(getattr(data, name)).resolve())
            for name in ("bank", "features", "root")
            if getattr(data, name)
        }
        paths["targets"] = [str(Path(target).resolve()) for target in data.targets]
        configs.append(config.model_copy(update={"data": data.model_copy(update=paths)}))
    return replace(unit, configs=tuple(configs), out=unit.out.resolve())


def _run_unit(unit: _Unit, threads: int) -> str:
    """Run in a process of its own; return what went wrong, or nothing."""
    import torch

    from .classification.run import run_classification

    torch.set_num_threads(threads)
    try:
        for config in unit.configs:
            seed = config.evaluation.seeds[0]
            place = unit.out / "units" / f"{_data_name(config)}-{_run_name(config)}-{seed}"
            run_classification(config, place, unit.out / "work")
    except UserError as error:
        return str(error)
    return ""


def average_tables(tables: Sequence[Results]) -> Results:
    """Return the average over data sets of one recipe with one number of shots.

    As in the literature each column is averaged over data sets, and H is that of the averages;
    here for every seed by itself.
    """
    first = tables[0]
    names = [method.name for method in first.methods if method.group != "published"]
    shared = [n for n in names if all(n in {m.name for m in t.methods} for t in tables)]
    rows = []
    for name in shared:
        methods = [table.method(name) for table in tables]
        seeds = []
        for i, row in enumerate(methods[0].seeds):
            mean = {
                metric: float(np.mean([m.seeds[i][metric] for m in methods]))
                for metric in first.metrics
            }
            if "H" in mean:
                mean["H"] = harmonic_mean(mean["base"], mean["new"])
            seeds.append({"seed": row["seed"], **mean})
        kept = methods[0]
        rows.append(MethodResult(name, seeds, kept.group, kept.note, None, kept.seconds))
    if len(tables) == ELEVEN and first.protocol.startswith("base2new"):
        rows += published_average(first.encoder)
    return Results(
        task=first.task,
        protocol=first.protocol,
        dataset=f"average of {len(tables)}",
        encoder=first.encoder,
        metrics=first.metrics,
        methods=rows,
        best=first.best,
        units=first.units,
        details={
            "shots": first.details["shots"],
            "images_a_class": float(np.mean([t.details["images_a_class"] for t in tables])),
        },
        notes=[f"Data sets: {', '.join(table.dataset for table in tables)}."],
    )

"""The paper's command rehearsed: real layouts, classes and code, drawn photos, random weights.

    python benchmarks/rehearse/run.py OUT [--smallest] [--encoder ViT-B-16-shrunk]

Lays out all that the suite ``paper`` reads in miniature, makes a ViT-B/16 with random weights and a
small random language model, runs the suite to its report, kills it once on the way and lets it
resume, and checks what came out. Nothing is downloaded. No figure of the tables means anything.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import captioned_sets
import labelled_sets
from drawn_pictures import Pictures
from random_models import (
    ARCHITECTURE,
    SHRUNK,
    write_clip,
    write_language_model,
    write_shrunk_clip,
)

from aape.adapter.config import EvaluationConfig
from aape.adapter.results import Results
from aape.adapter.suite.plan import SUITES, Job, Suite

_LARGE = ("imagenet", "sun397")  # at 16 shots of every class, only what must be
_SMALLEST = ("eurosat", "pets")
_MANY_PHOTOS = "eurosat"  # sixteen a class; all others have two


@dataclass
class Log:
    """What was done and how long it took, for ``rehearsal.json``."""

    stages: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    since: float = field(default_factory=time.perf_counter)

    def stage(self, name: str) -> None:
        """Note that a stage is done."""
        now = time.perf_counter()
        self.stages.append({"name": name, "seconds": round(now - self.since, 1)})
        print(f"== {name}: {now - self.since:.1f} s", flush=True)
        self.since = now

    def check(self, name: str, passed: bool, detail: str = "") -> None:
        """Note what was checked."""
        self.checks.append({"name": name, "passed": passed, "detail": detail})
        print(f"{'ok  ' if passed else 'FAIL'} {name}{f': {detail}' if detail else ''}", flush=True)


def main() -> int:
    """Run the rehearsal; 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for data, models and results")
    parser.add_argument("--smallest", action="store_true", help="two small data sets, one seed")
    parser.add_argument(
        "--contents", type=int, default=20, help="different pictures a split; 0: all"
    )
    parser.add_argument(
        "--encoder", default=ARCHITECTURE, help=f"architecture of open_clip, or {SHRUNK}: minutes"
    )
    parser.add_argument("--curves", default="all", help="data sets that have learning curves")
    parser.add_argument("--baselines", default="all", help="of data sets that are not large")
    parser.add_argument("--vllm-python", default=os.environ.get("AAPE_VLLM_PYTHON", ""))
    words = parser.parse_args()
    out = words.out.resolve()
    log = Log()
    data, models = out / "data", out / "models"
    write_data(data, Pictures(words.contents), words.smallest)
    log.stage("data sets laid out")
    encoder = open_clip_encoder(words.encoder, models)
    language_model = write_language_model(models / "small-llama")
    log.stage("models made")
    suite = rehearsal_suite(words, encoder, language_model)
    file = out / "suite.yaml"
    file.write_text(suite.to_yaml(), encoding="utf-8")
    env = {
        **os.environ, "AAPE_DATA": str(data), "AAPE_HOME": str(out / "home"),
        "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    needs = json.loads(run_aape(["eval", "all", "--suite", file, "--dry-run", "--json"], env))
    lacking = [need["name"] for need in needs["needs"] if need["missing"]]
    log.check("the dry run finds everything", needs["complete"], ", ".join(lacking))
    log.stage("dry run")
    if not words.smallest and words.encoder != SHRUNK:
        write_banks(out, env, words.vllm_python, log)
    run_suite_twice(file, out, env, log)
    check_tables(suite, out / "runs" / suite.name, log)
    report = {
        "encoder": words.encoder, "suite": suite.name, "jobs": len(suite.jobs),
        "seconds": round(sum(stage["seconds"] for stage in log.stages), 1),
        "processors": os.cpu_count(), "stages": log.stages, "checks": log.checks,
    }  # fmt: skip
    (out / "rehearsal.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    failed = [check["name"] for check in log.checks if not check["passed"]]
    print(f"{report['seconds']:.0f} s in all; {len(failed)} of {len(log.checks)} checks failed")
    return 1 if failed else 0


def write_data(data: Path, pictures: Pictures, smallest: bool) -> None:
    """Lay out the data sets that are not there yet."""
    for name, write in labelled_sets.WRITERS.items():
        if (smallest and name not in _SMALLEST) or (data / f".{name}").exists():
            continue
        write(data, pictures, counts_of(name, smallest))
        (data / f".{name}").touch()
    if not smallest and not (data / ".variants").exists():
        labelled_sets.imagenet_variants(data, pictures, labelled_sets.Counts())
        (data / ".variants").touch()
    sizes = captioned_sets.Sizes(8, 4, 4) if smallest else captioned_sets.Sizes()
    for name, write in captioned_sets.WRITERS.items():
        if not (data / f".{name}").exists():
            write(data, pictures, sizes)
            (data / f".{name}").touch()


def counts_of(name: str, smallest: bool) -> labelled_sets.Counts:
    """Return how many pictures a class has: few, and sixteen where classes are few."""
    few = labelled_sets.Counts()
    return labelled_sets.Counts(16, 4, 2) if name == _MANY_PHOTOS and not smallest else few


def open_clip_encoder(name: str, models: Path) -> dict[str, Any]:
    """Make the encoder; return its section of the configuration."""
    if name == SHRUNK:
        return {"name": f"local-dir:{write_shrunk_clip(models / SHRUNK)}", "workers": 0}
    weights = write_clip(models / f"{name}.safetensors", name)
    return {"name": name, "checkpoint": str(weights), "workers": 0}


def rehearsal_suite(
    words: argparse.Namespace, encoder: dict[str, Any], language_model: Path
) -> Suite:
    """Return the suite ``paper`` with all its jobs and rows, at sizes that a laptop can do."""
    paper = SUITES["paper"]
    jobs = [smaller(job, words) for job in paper.jobs if is_wanted(job, words)]
    # captions by SmolLM2, or where seconds count by the small one too
    quick = words.smallest or words.encoder == SHRUNK
    writer = {"language_model": str(language_model)} if quick else {}
    values = paper.model_dump(mode="json") | {
        "name": "rehearsal",
        "title": f"Rehearsal of: {paper.title}. Drawn photos and random weights: no figure counts.",
        "jobs": [job.model_dump(mode="json") for job in jobs],
        "encoder": encoder,
        "generation": {
            "engine": "transformers", "model": str(language_model), "samples": 1,
            "sampling": {"max_tokens": 1}, "batch_size": 256,
            "top_up": {"min_kept": 1, "max_samples": 2},
        },
        "captions": {"epochs": 1, "batch_size": 8},
        "captioning": {**writer, "steps": 1, "batch_size": 2, "aape_tokens": 1,
                       "decode": {"max_tokens": 2, "strategy": "greedy"}},
        "vqa": {**writer, "steps": 1, "caption_steps": 1, "batch_size": 2, "aape_tokens": 1,
                "vocabulary": 4, "decode": {"max_tokens": 2}},
        "caption_seeds": [1], "repeat_images": True,
        "test_images": 2 if words.smallest else 6,
        "test_questions": 3 if words.smallest else 9,
    }  # fmt: skip
    return Suite.parse(values, "the suite of the rehearsal")


def is_wanted(job: Job, words: argparse.Namespace) -> bool:
    """Say whether a job is part of this rehearsal."""
    if words.smallest and not is_small(job):
        return False
    curve = job.evaluation.protocol == "fewshot" and job.tasks == ["classification"]
    return not curve or words.curves == "all" or job.dataset in words.curves.split(",")


def is_small(job: Job) -> bool:
    """Say whether a job belongs to the smallest rehearsal."""
    few = job.evaluation.protocol == "fewshot" and job.evaluation.shots not in (1, 4)
    if job.tasks == ["classification"]:
        return set(job.datasets) <= set(_SMALLEST) and not few
    return job.dataset in ("coco", "vqav2")


def smaller(job: Job, words: argparse.Namespace) -> Job:
    """Return a job with one seed and few epochs; of the large data sets, baselines that are fast.

    Tables that stand beside published figures keep their 16 shots, but for those that see the many
    photos of EuroSAT in views: each is a pass of the tower.
    """
    large = job.dataset in _LARGE
    beside_published = job.evaluation.protocol == "base2new" and job.recipe is None
    evaluation = job.evaluation.model_dump(mode="json") | {"seeds": [1], "resamples": 20}
    if "all" in job.evaluation.baselines:
        first = ["fast"] if large else words.baselines.split(",")
        evaluation["baselines"] = first if large else [*first, "prolip"]
    many_views = job.recipe is not None and job.dataset == _MANY_PHOTOS
    if not beside_published and (large or many_views):
        evaluation["shots"] = min(int(evaluation["shots"]), 2 if large else 4)
    recipe = job.recipe and job.recipe.model_copy(update={"epochs": 1, "views": 1})
    changes = {"evaluation": EvaluationConfig.model_validate(evaluation), "recipe": recipe}
    return job.model_copy(update=changes)


def run_aape(words: list[Any], env: dict[str, str]) -> str:
    """Run a command of aape and return what it printed; status 1 is an answer too."""
    command = [sys.executable, "-m", "aape.cli", *map(str, words)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(map(str, words))} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def write_banks(out: Path, env: dict[str, str], vllm_python: str, log: Log) -> None:
    """Ask real language models for a few prompts: SmolLM2, in this process and through vLLM."""
    engines = {"transformers": []}
    if vllm_python and Path(vllm_python).exists():
        engines["vllm"] = ["--engine-python", vllm_python]
    for engine, more in engines.items():
        bank = out / f"eurosat-{engine}.bank.parquet"
        queries = out / "query.yaml"
        queries.write_text("- {id: look, text: 'What does {article} {class} look like?'}\n")
        run_aape(
            ["generate-prompts", "--dataset", "eurosat", "--engine", engine, *more, "--model",
             "smollm2", "--samples", 1, "--queries", queries, "--out", bank, "--set",
             "sampling.max_tokens=12", "--set", "top_up.min_kept=0", "--encoder", "lite"],
            env,
        )  # fmt: skip
        rows = json.loads(run_aape(["bank", "stats", bank, "--json"], env))
        log.check(f"SmolLM2 wrote a bank through {engine}", bool(rows), str(bank))
        log.stage(f"prompts by SmolLM2 through {engine}")


def run_suite_twice(file: Path, out: Path, env: dict[str, str], log: Log) -> None:
    """Start the suite, kill it when its second table is done, and start it again."""
    command = [sys.executable, "-m", "aape.cli", "eval", "all", "--suite", str(file),
               "--out", str(out / "runs")]  # fmt: skip
    first = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert first.stderr is not None
    stages = 0
    with (out / "suite-first.log").open("w") as kept:
        for line in first.stderr:
            kept.write(line)
            stages += line.startswith("[")
            if stages == 4:  # banks and two tables are done, the third begins
                os.killpg(first.pid, signal.SIGKILL)
                break
    first.wait()
    log.check("the suite was killed on its way", first.returncode == -signal.SIGKILL)
    log.stage("suite until it was killed")
    with (out / "suite.log").open("w") as kept:
        again = subprocess.run(command, env=env, stdout=kept, stderr=subprocess.STDOUT, check=False)
    said = (out / "suite.log").read_text()
    log.check("the suite ends well", again.returncode == 0, said[-600:] if again.returncode else "")
    log.check("finished tables are reused", said.count("Reusing") >= 2)
    log.stage("suite, resumed, to its report")


def check_tables(suite: Suite, folder: Path, log: Log) -> None:
    """Look whether every table is there, with the rows that it must have."""
    for job in suite.jobs:
        for task in job.tasks:
            path = folder / job.folder / "results" / f"{task}.json"
            found = Results.load(path) if path.exists() else None
            log.check(f"{task} on {job.folder}", found is not None and bool(found.methods))
            if found is None or task != "classification":
                continue
            names = [method.name for method in found.methods]
            published = any(method.group == "published" for method in found.methods)
            if job.evaluation.protocol == "base2new" and job.evaluation.shots == 16:
                log.check(f"  published figures beside {job.folder}", published, ", ".join(names))
            if job.evaluation.controls:
                aggregators = sum(name.endswith("-prompt") for name in names)
                log.check(f"  three other aggregators on {job.folder}", aggregators == 3)
    for summary in sorted(folder.glob("summary-*.json")):
        print(f"\n{Results.load(summary).title}\n{Results.load(summary).to_markdown()}")
    log.check("the order of aggregators is a table", (folder / "summary-aggregators.json").exists())
    log.check("the report is written", (folder / "report.html").exists())


if __name__ == "__main__":
    sys.exit(main())

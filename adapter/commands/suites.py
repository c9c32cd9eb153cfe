"""aape demo and suites: whole lists of jobs by one name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, print_json

app = typer.Typer()


@app.command("demo")
def demo(
    fast: Annotated[
        bool, typer.Option("--fast", help="Reduced size: a check, no figures.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the results go.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """See it work, offline: descriptions, bank, training, four tasks, report.

    Uses the embedded default: SmolLM2 writes, the encoder `lite` embeds, the data set is `shapes`.
    It is the suite `embedded` of aape eval all. Run it again and it says what it reuses.
    """
    run_named(f"embedded{'-fast' if fast else ''}", out, skip_missing=False, as_json=as_json)


@app.command("suites")
def suites(as_json: AsJson = False) -> None:
    """List the suites that `aape eval all --suite NAME` runs, and what is in them."""
    from ..suite.plan import SUITES

    if as_json:
        print_json({name: item.model_dump(mode="json") for name, item in SUITES.items()})
        return
    for name, item in SUITES.items():
        jobs = "; ".join(f"{job.folder} ({', '.join(job.tasks)})" for job in item.jobs)
        typer.echo(f"{name}: {item.title}\n    {jobs}")


def run_named(name: str, out: Path, skip_missing: bool, as_json: bool) -> None:
    """Run a suite below ``out`` and print its tables."""
    from dataclasses import asdict

    from ..suite.plan import load_suite
    from ..suite.run import run_suite
    from .print_results import print_results

    chosen = load_suite(name)
    results = run_suite(chosen, out / chosen.name, skip_missing=skip_missing)
    if as_json:
        print_json([asdict(item) for item in results])
        return
    for item in results:
        print_results(item)
    typer.echo(f"Report: {out / chosen.name / 'report.html'}")

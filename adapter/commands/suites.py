"""aape demo and suites: whole lists of jobs by one name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, print_json
from ...pipeline.terminal import echo

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
    run_and_show(f"embedded{'-fast' if fast else ''}", out, False, (), as_json)


@app.command("suites")
def suites(as_json: AsJson = False) -> None:
    """List the suites that `aape eval all --suite NAME` runs, and what is in them."""
    from rich.padding import Padding
    from rich.text import Text

    from ...pipeline.terminal import output
    from ..suite import verbs

    known = verbs.suites()
    if as_json:
        print_json({name: item.model_dump(mode="json") for name, item in known.items()})
        return
    console = output(highlight=False)
    for name, item in known.items():
        console.print(Text(f"{name}: {item.title}"))
        jobs = "; ".join(f"{job.folder} ({', '.join(job.tasks)})" for job in item.jobs)
        console.print(Padding(Text(jobs), (0, 0, 0, 4), expand=False))


def run_and_show(
    suite: str, out: Path, skip_missing: bool, settings: Sequence[str], as_json: bool
) -> None:
    """Run a suite below ``out`` and print its tables."""
    from ..suite import verbs
    from .print_results import print_results

    chosen = verbs.chosen_suite(suite, settings)
    results = verbs.eval_all(chosen, out, skip_missing)
    if as_json:
        print_json(results)
        return
    for item in results:
        print_results(item)
    echo(f"Report: {out / chosen.name / 'report.html'}")


def show_needs(suite: str, settings: Sequence[str], as_json: bool) -> None:
    """Print what a suite needs; exit status 1 if anything is missing."""
    from ..suite import verbs

    found = verbs.eval_all(suite, settings=settings, dry_run=True)
    if as_json:
        print_json(found.as_dict())
    else:
        for line in found.lines():
            echo(line)
    raise typer.Exit(0 if found.complete else 1)

"""Fill the report's template. All text is data from users and models, so everything is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import UserError
from ...pipeline.files import read_json, write_text
from . import figures, origin
from .sections import TITLES, section

if TYPE_CHECKING:
    from ..results import Results

_WITH_FIGURES = 40  # tables; a page of a whole suite goes without, or it would never open


@dataclass
class Stage:
    """One step of the work behind the report: what was done, how long it took, what was reused."""

    name: str
    seconds: float
    detail: str = ""
    reused: bool = False


def write_report(
    path: str | Path,
    results: Sequence[Results],
    *,
    title: str,
    summary: str = "",
    stages: Sequence[Stage] = (),
    prompts: Sequence[tuple[str, list[str]]] = (),
    environment: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
    root: str | Path | None = None,
    about: dict[str, Any] | None = None,
) -> Path:
    """Write the report and return its path.

    Args:
        results: the tables, one section each, in this order.
        stages: what was done and how long it took.
        prompts: for some classes, ``(class name, a few kept prompts of its bank)``.
        environment: as :func:`aape.adapter.run.environment` gives it.
        notes: sentences that hold for the whole report.
        root: folder of the photos; without it, only photos of data sets that lie where this
            machine keeps them are shown.
        about: what :func:`report_run` found in a run: ``provenance``, ``terms``, ``bank``,
            ``training`` (curves), ``configuration``.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    own = files(__name__.rpartition(".")[0])
    template = own.joinpath("report.html.j2").read_text(encoding="utf-8")
    css = own.joinpath("report.css").read_text(encoding="utf-8")
    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    about = about or {}
    bank = about.get("bank") or {}
    sections = [
        _section(result, f"table-{i}", root, len(results) <= _WITH_FIGURES)
        for i, result in enumerate(results)
    ]
    for made in sections:
        made["pairs"] = _pairs(made["samples"])
    text = page.from_string(template).render(
        css=Markup(css),  # our own file  # nosec B704
        title=title,
        summary=summary,
        sections=sections,
        curves=_curves(results, about.get("training") or {}),
        terms=about.get("terms") or [],
        bank={"missing": "", "rows": [], "verdicts": []} | (bank or {}),
        prompts=prompts or bank.get("prompts", []),
        provenance=about.get("provenance") or [],
        configuration=about.get("configuration", ""),
        stages=stages,
        seconds=duration(sum(stage.seconds for stage in stages)),
        duration=duration,
        environment=environment or {},
        notes=notes,
    )
    write_text(path, text)
    return Path(path)


def _section(
    results: Results, name: str, root: str | Path | None, pictures: bool
) -> dict[str, Any]:
    """Return what the template shows of a table, whose details may be a stranger's.

    Raises:
        UserError: its details are not what a report shows.
    """
    try:
        return section(results, name, root, pictures)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"The table of {results.task} on {results.dataset} has details that no report can"
            f" show ({type(error).__name__}: {error}).",
            "Restore it from a copy, or make it again.",
        ) from error


def report_run(
    folder: str | Path, *, root: str | Path | None = None, bank: str | Path | None = None
) -> tuple[list[Results], Path]:
    """Write ``report.html`` for a run folder from what lies in it; return its tables and its path.

    Args:
        folder: of a run, or of several in folders of their own.
        root: folder of the photos, where they lie in no usual place.
        bank: the run's bank, where it moved.

    Raises:
        UserError: the folder has no results.
    """
    from ..results import Results

    run = Path(folder)
    results = [Results.load(path) for path in sorted(run.glob("**/results/*.json"))]
    known = [*TITLES]
    results.sort(key=lambda t: (known + [t.task]).index(t.task))
    if not results:
        raise UserError(f"{run} has no results.", "Make some with aape train or aape eval.")
    machine = run / "environment.json"
    adapter = origin.adapter_facts(run)
    configuration = run / "config.yaml"
    path = write_report(
        run / "report.html",
        results,
        title=f"aape: {run.resolve().name}",
        environment=read_json(machine) if machine.exists() else None,
        root=root,
        about={
            "provenance": origin.provenance(run, adapter),
            "terms": origin.terms(adapter),
            "bank": origin.bank_facts(run, adapter, bank),
            "training": origin.training_curves(run),
            "configuration": configuration.read_text(encoding="utf-8", errors="replace")
            if configuration.is_file()
            else "",
        },
    )
    return results, path


def report(
    run: str | Path, *, root: str | Path | None = None, bank: str | Path | None = None
) -> list[Results]:
    """Write ``report.html`` for a run folder from the tables in it, and return these.

    The arguments are those of :func:`report_run`.

    Raises:
        UserError: the folder has no results.
    """
    return report_run(run, root=root, bank=bank)[0]


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``"8 s"``, ``"3 min 05 s"``, ``"1 h 02 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _pairs(samples: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Put each wrong photo and the right one that follows it together."""
    pairs: list[list[dict[str, Any]]] = []
    for sample in samples:
        if sample["good"] and pairs and len(pairs[-1]) == 1 and not pairs[-1][0]["good"]:
            pairs[-1].append(sample)
        else:
            pairs.append([sample])
    return pairs


def _curves(
    results: Sequence[Results], training: dict[str, list[tuple[float, float, float]]]
) -> list[dict[str, str]]:
    """Return accuracy by shots where tables of several numbers of shots are here, then training."""
    from ..curves import curves, images_a_class

    groups: dict[tuple[str, str], list[Results]] = {}
    for table in results:
        if table.task == "classification" and "shots" in table.details:
            groups.setdefault((table.dataset, table.protocol), []).append(table)
    made = []
    for number, ((dataset, protocol), group) in enumerate(groups.items()):
        ordered = sorted(group, key=images_a_class)
        by_method = curves(ordered)
        ranked = sorted(
            by_method, key=lambda name: (not name.startswith("ours"), -by_method[name][-1][1])
        )
        svg = figures.lines(
            {name: [tuple(map(float, point)) for point in by_method[name]] for name in ranked},  # type: ignore[misc]
            f"curves-{number}",
            x="shots",
            y=f"{ordered[0].best} (%)",
            label=f"{ordered[0].best} of each method against the number of shots on {dataset}.",
            powers=True,
        )
        caption = f"{dataset}, {protocol}: mean over seeds; the band is one deviation of ours."
        made.append({"svg": svg, "caption": caption})
    svg = figures.lines(
        training,
        "curves-training",
        x="epoch",
        y="cross-entropy",
        label="Cross-entropy on the training images against epochs.",
    )
    made.append({"svg": svg, "caption": "Training: mean over seeds, the band is one deviation."})
    return [figure for figure in made if figure["svg"]]

"""The verbs ``eval all``, ``demo`` and ``suites`` as functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from ...pipeline.settings import Assignments, settle

if TYPE_CHECKING:
    from ..results import Results
    from .needs import SuiteNeeds
    from .plan import Suite


@overload
def eval_all(
    suite: str | Path | Suite = "embedded",
    out: str | Path = "runs",
    skip_missing: bool = False,
    settings: Assignments = (),
    dry_run: Literal[False] = False,
) -> list[Results]: ...


@overload
def eval_all(
    suite: str | Path | Suite = "embedded",
    out: str | Path = "runs",
    skip_missing: bool = False,
    settings: Assignments = (),
    *,
    dry_run: Literal[True],
) -> SuiteNeeds: ...


def eval_all(
    suite: str | Path | Suite = "embedded",
    out: str | Path = "runs",
    skip_missing: bool = False,
    settings: Assignments = (),
    dry_run: bool = False,
) -> list[Results] | SuiteNeeds:
    """Run a suite: banks, all tasks on all its data sets, one report in ``out/NAME``.

    Args:
        suite: a name (see :func:`suites`), a YAML file such as the ``config.yaml`` of a suite's
            folder, or a suite. skip_missing: leave out data sets that are not here.
        settings: ``{"recipe.name": "mine"}``, or ``["caption_seeds=1,2"]``; they win.
        dry_run: compute nothing; return what is missing, where to get it and how much work it is.

    Raises:
        UserError: the suite is unknown, or a data set is missing: all of them are named first.
    """
    from .run import run_suite

    chosen = chosen_suite(suite, settings)
    if dry_run:
        from .needs import suite_needs

        return suite_needs(chosen)
    return run_suite(chosen, Path(out) / chosen.name, skip_missing=skip_missing)


def chosen_suite(suite: str | Path | Suite, settings: Assignments = ()) -> Suite:
    """Return a suite by name, file or as it is, with some settings changed."""
    from .plan import Suite, load_suite

    found = suite if isinstance(suite, Suite) else load_suite(str(suite))
    if not settings:
        return found
    return settle(Suite, found.model_dump(mode="json"), {}, settings)


def demo(fast: bool = False, out: str | Path = "runs") -> list[Results]:
    """Run the suite ``embedded``: everything on the embedded default, offline.

    Args:
        fast: reduced size: a check, no figures.

    Raises:
        UserError: a package of the embedded default is missing.
    """
    return eval_all(f"embedded{'-fast' if fast else ''}", out)


def suites() -> dict[str, Suite]:
    """Return the shipped suites by name."""
    from .plan import SUITES

    return dict(SUITES)

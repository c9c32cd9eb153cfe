"""How a bank looks on a terminal. Text from banks is shown as data: no markup, no escape codes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.text import Text

from .. import terminal
from ..bank.diff import BankDiff
from ..bank.index import IndexReport
from ..bank.schema import KEPT
from ..bank.search import SearchHit
from ..bank.statistics import BankStatistics, ClassStatistics
from ..bank.verify import VerifyReport
from ..counts import counted

_FEW = 20


def visible(value: Any) -> str:
    """Return text in which control characters are spelled out, so they cannot steer a terminal."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)) and len(value) > 8 and isinstance(value[0], float):
        return f"[{', '.join(f'{x:.3f}' for x in value[:3])}, … {len(value)} numbers]"
    if isinstance(value, (dict, list, tuple)):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return terminal.visible("" if value is None else str(value)).replace("\n", "\\n")


def print_table(head: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """Print rows of any values as a table; numbers to the right."""
    rows = [list(row) for row in rows]
    out = terminal.output(highlight=False)
    table = terminal.table(
        out, title=Text(title) if title else None, title_justify="left", header_style="bold"
    )
    for index, name in enumerate(head):
        numeric = bool(rows) and all(isinstance(row[index], (int, float)) for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    out.print(table)


def print_prompts(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print the prompts of classes; data set and class stand above where they are all the same."""
    same = 3 if rows and all(row[:3] == rows[0][:3] for row in rows) else 0
    title = "  ".join(visible(cell) for cell in rows[0][:same]) if same else ""
    print_table(head[same:], [row[same:] for row in rows], title)


def print_info(info: dict[str, Any]) -> None:
    """Print what :func:`.statistics.bank_info` returns."""
    rows = [(name.replace("_", " "), value) for name, value in info.items() if name != "data_sets"]
    print_table(["what", "value"], rows)
    columns = ["dataset", "classes", "manifest_hash"]
    print_table(columns, [[part[name] for name in columns] for part in info["data_sets"]])


def print_statistics(statistics: BankStatistics, every_class: bool) -> None:
    """Print counts, and the classes with the fewest kept prompts, or every class."""
    total = max(statistics.rows, 1)
    rows = [(k, v, f"{100 * v / total:.1f} %") for k, v in statistics.verdicts.items()]
    print_table(["verdict", "prompts", "share"], rows, f"{statistics.rows} prompts")
    print_table(["query", "prompts"], statistics.queries.items())
    if len(statistics.kinds) > 1:
        print_table(["kind", "prompts"], statistics.kinds.items())
    if statistics.own_queries:
        title = f"Queries that the language model wrote, for: {visible(statistics.about)}"
        print_table(["query"], [[query] for query in statistics.own_queries], title)
    print_table(
        ["kept a class", "value"],
        [
            ("least", statistics.kept_least),
            ("median", statistics.kept_median),
            ("most", statistics.kept_most),
            ("classes without", statistics.classes_without_kept),
            ("tokens, mean", statistics.tokens_mean),
            ("tokens, most", statistics.tokens_max),
        ],
    )
    classes = statistics.classes
    title = "Classes"
    if not every_class and len(classes) > _FEW:
        classes = sorted(classes, key=lambda entry: entry.kept)[:_FEW]
        title = f"The {_FEW} classes with the fewest kept prompts (all: --all)"
    rows = [
        (entry.dataset, entry.class_id, entry.class_name, entry.kept, _dropped(entry))
        for entry in classes
    ]
    _print_by_class(["data set", "id", "class", "kept", "dropped"], rows, title)


def _dropped(entry: ClassStatistics) -> str:
    counts = (f"{n} {verdict}" for verdict, n in entry.verdicts.items() if verdict != KEPT)
    return ", ".join(counts)


def print_hits(hits: Sequence[SearchHit]) -> None:
    """Print what a search found, best first."""
    rows = [(h.dataset, h.class_id, h.class_name, f"{h.cosine:.4f}", h.text) for h in hits]
    _print_by_class(["data set", "id", "class", "cosine", "prompt"], rows)


def _print_by_class(head: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """Print rows that begin with a data set, whose column is left out where there is but one."""
    first = 0 if len({row[0] for row in rows}) > 1 else 1
    print_table(head[first:], [row[first:] for row in rows], title)


def print_diff(diff: BankDiff) -> None:
    """Print the difference of two banks: counts, then the first changes."""
    if diff.same:
        terminal.output().print("The banks hold the same prompts with the same vectors.")
        return
    counts = [("added", len(diff.added)), ("removed", len(diff.removed))]
    print_table(["prompts", "number"], [*counts, ("changed", len(diff.changed))])
    if diff.metadata:
        print_table(["metadata", "before", "after"], [(k, *v) for k, v in diff.metadata.items()])
    rows = [
        (prompt.prompt_id, prompt.class_name, column, before, after)
        for prompt in diff.changed[:_FEW]
        for column, (before, after) in prompt.changes.items()
    ]
    if rows:
        print_table(["prompt", "class", "column", "before", "after"], rows, "First changes")


def print_verify(report: VerifyReport) -> None:
    """Print whether a bank is sound, and what to do if it is not."""
    out = terminal.output()
    for problem in report.problems:
        out.print(Text(visible(problem), style="red"))
    if not report.problems:
        out.print(
            f"{report.rows} rows in {counted(report.row_groups, 'row group', 'row groups')}:"
            " every checksum agrees.",
            highlight=False,
        )
    out.print(Text(f"Index: {report.index}"))
    if report.remedy:
        out.print(Text(f"What to do: {report.remedy}"))


def merged_line(summary: dict[str, Any]) -> str:
    """Say in one sentence what was merged into what."""
    banks = counted(len(summary["banks"]), "bank", "banks")
    return (
        f"Wrote {summary['bank']} and its index: {summary['prompts']:,} prompts"
        f" ({summary['kept']:,} kept) of {summary['classes']:,} classes"
        f" ({', '.join(summary['datasets'])}), from {banks}."
    )


def print_index(report: IndexReport) -> None:
    """Print what kind of index was built, and how good it is."""
    recall = f"{100 * report.recall:.1f} % of the exact nearest 10, {report.recall_queries} queries"
    lists = "lists looked at"
    effort = {"ivf": lists, "ivfpq": lists, "hnsw": "candidates kept"}.get(report.kind)
    rows = [("kind", report.kind), ("prompts", report.rows), ("bytes", report.size)]
    rows += [("recall", recall)] + ([(effort, report.effort)] if effort else [])
    if report.candidates:
        rows.append(("ranked again, for each result", report.candidates))
    print_table(["index", "value"], rows)

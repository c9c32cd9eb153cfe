"""What joins the tables of a suite: averages over data sets, the paper's order of aggregators."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from ..results import MethodResult, Results
from ..shots import in_words
from ..sweep import average_tables

# of the ablation of Huang et al. 2024, the weakest first; its control, its printed name
_ORDER = (
    ("random-prompt", "random prompt"),
    ("mean-prompt", "mean prompt"),
    ("mlp-prompt", "MLP"),
    ("", "attention"),
)


def summaries(results: Sequence[Results]) -> list[Results]:
    """Return the tables over several data sets: averages first, then the order of aggregators.

    Tables are joined where recipe, protocol and shots agree, and only of different data sets.
    ``details["summary"]`` names each.
    """
    groups: dict[tuple[str, str, str], list[Results]] = {}
    for table in results:
        if table.task == "classification" and table.protocol.split("/")[0] in _AVERAGED:
            key = (_ours(table), table.protocol, str(table.details["shots"]))
            groups.setdefault(key, []).append(table)
    joined = []
    for (ours, protocol, shots), tables in groups.items():
        if len({table.dataset for table in tables}) < 2:
            continue
        average = average_tables(tables)
        rule = protocol.split("/")[0]
        words = in_words(tables[0].details["shots"])
        average.title = f"average of {len(tables)} data sets: {ours}, {rule}, {words}"
        recipe = ours.partition("(")[2].rstrip(")") or "default"
        average.details["summary"] = f"{recipe}-{rule}-{shots}"
        joined.append(average)
    order = aggregator_order(results)
    return [*joined, order] if order is not None else joined


_AVERAGED = ("base2new", "fewshot", "generalized")


def _ours(table: Results) -> str:
    return next((m.name for m in table.methods if m.group == "ours"), "")


def aggregator_order(results: Sequence[Results]) -> Results | None:
    """Return the ablation of aggregators averaged over data sets, in the paper's order, or nothing.

    A note says whether the order random < mean < MLP < attention holds here.
    """
    tables = []
    for table in results:
        if table.task != "classification" or not table.protocol.startswith("base2new"):
            continue
        ours = _ours(table)
        names = {control: f"{ours}, {control}" if control else ours for control, _ in _ORDER}
        there = {method.name: method for method in table.methods}
        if not set(names.values()) <= set(there):
            continue
        rows = [
            replace(there[names[control]], name=name, group="ours" if not control else "control")
            for control, name in _ORDER
        ]
        tables.append(replace(table, methods=rows, intervals={}, samples=[]))
    if not tables:
        return None
    average = average_tables(tables)
    average.methods = [m for m in average.methods if m.group != "published"]
    average.title = f"aggregators, average of {len(tables)} data sets, the paper's order"
    average.details["summary"] = "aggregators"
    average.notes.append(_verdict(average.methods, average.best))
    return average


def _verdict(methods: Sequence[MethodResult], metric: str) -> str:
    """Say how the rows lie."""
    means = [method.mean(metric) for method in methods]
    pairs = list(itertools.pairwise(means))
    paper = "random < mean < MLP < attention (Huang et al. 2024)"
    if all(low < high for low, high in pairs):
        return f"The paper's order by {metric}, {paper}, holds here."
    ranked = sorted(methods, key=lambda method: method.mean(metric))
    return (
        f"The paper's order by {metric} is {paper}; here it is "
        + " ≤ ".join(method.name for method in ranked)
        + "."
    )

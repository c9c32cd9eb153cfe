"""The end of a run: its tables in one file, the model card and the report, of what is there.

Each is made anew from the folder, so none of them tells of an earlier state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..pipeline.errors import UserError
from ..pipeline.files import read_json, write_text
from ..pipeline.settings import read_source
from ..pipeline.store import read_record, write_record
from .report import origin, report_run
from .results import Results
from .run import RunFolder

_DECISIVE = {
    "classification": ("data.bank", "data.features", "evaluation.protocol", "evaluation.shots",
                       "evaluation.seeds", "recipe.name", "recipe.kind"),
    "captions": ("dataset", "seeds", "captions.form", "captions.distillation"),
}  # fmt: skip


def finish_run(run: RunFolder) -> None:
    """Write ``results.json``, ``README.md`` and ``report.html`` from the tables of a run.

    Raises:
        UserError: there are no tables, or one is damaged.
    """
    tables = tables_of(run)
    write_record(run.path / "results.json", {"schema": 1, "tables": tables})
    write_text(run.path / "README.md", model_card(run))
    report_run(run.path)


def tables_of(run: RunFolder) -> dict[str, Any]:
    """Return the tables of a run by task, as they are kept in ``results/``."""
    paths = sorted((run.path / "results").glob("*.json"))
    return {path.stem: read_record(path) for path in paths}


def model_card(run: RunFolder) -> str:
    """Return what a run is, how it was made and how good it is, as Markdown.

    Names come from users and models, so they are shown as code.
    """
    values = read_source(run.path / "config.yaml")
    task = str(values.get("task", "classification"))
    lines = [f"# Run {_code(run.path.resolve().name)}", "", *_what_it_is(task), ""]
    lines += _table(
        ("setting", "value"),
        [(name, _at(values, name)) for name in _DECISIVE.get(task, ())],
    )
    lines += _provenance(run, values)
    lines += _terms(run)
    for path in sorted((run.path / "results").glob("*.json")):
        results = Results.load(path)
        lines += ["", f"## {_text(results.title or results.task)}", "", results.to_markdown()]
    lines += _reproduce(run, task)
    return "\n".join(lines).rstrip() + "\n"


def _what_it_is(task: str) -> list[str]:
    if task == "captions":
        return [
            "A generator of prompt embeddings trained on captioned images, for `aape eval"
            " retrieval`, `captioning` and `vqa`. Made by `aape train-captions`."
        ]
    return [
        "A few-shot classifier on frozen image embeddings. Made by `aape train`; used with `aape"
        " predict RUN PHOTOS`, or in Python with `aape.Classifier.load(RUN)`."
    ]


def _provenance(run: RunFolder, values: Mapping[str, Any]) -> list[str]:
    """Return what the run was made of: encoder, bank, data set, versions, machine."""
    about = _json(run.path / "adapter_config.json")
    made = _json(run.path / "environment.json")
    names = about.get("class_names")
    rows: list[tuple[str, Any]] = [
        ("data set", about.get("dataset") or values.get("dataset")),
        ("encoder", about.get("encoder") or _at(values, "encoder.name")),
        ("bank, SHA-256", about.get("bank_sha256")),
        ("trained classes", len(names) if isinstance(names, list) else None),
        ("seed of the kept adapter", about.get("seed")),
        ("machine", made.get("gpu") or made.get("platform")),
    ]
    packages = made.get("packages")
    if isinstance(packages, dict):
        some = [f"{name} {packages[name]}" for name in ("aape", "torch") if name in packages]
        rows.append(("versions", ", ".join(some)))
    kept = [(name, value) for name, value in rows if value not in (None, "")]
    return ["", "## Where it comes from", "", *_table(("what", "value"), kept)]


def _terms(run: RunFolder) -> list[str]:
    """Return the table of terms: the logits are the sum of each times its weight."""
    about = _json(run.path / "adapter_config.json")
    # of a stranger's run: what is no table of weights is left out
    rows = [
        (term["name"], f"{term['seen']:.4g}", f"{term['new']:.4g}") for term in origin.terms(about)
    ]
    text = about.get("class_text")
    text = text if isinstance(text, dict) else {}
    if not rows or not isinstance(text.get("share", 0.0), int | float):
        return []
    share = text.get("share", 0.0)
    stands = f"{_code(text.get('base', 'template'))}, and {share:.0%} of its descriptions"
    return [
        "",
        "## What its logits are a sum of",
        "",
        *_table(("term", "weight for a trained class", "for a new class"), rows),
        "",
        f"What stands for a class in words: {stands}.",
    ]


def _reproduce(run: RunFolder, task: str) -> list[str]:
    verb = "train-captions" if task == "captions" else "train"
    return ["", "## The same again", "", f"`aape {verb} --config config.yaml`, from where the run"
            " was made; `environment.json` has the versions."]  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except UserError:
        return {}
    return value if isinstance(value, dict) else {}


def _at(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [
        f"| {_text(str(row[0]))} | {' | '.join(_code(cell) for cell in row[1:])} |"
        for row in rows
        if row[1] not in (None, "")
    ]


def _code(value: Any) -> str:
    """Return a value as inline code that nothing in it can end.

    >>> _code("a`b|c")
    "`a'b/c`"
    """
    text = re.sub(r"\s+", " ", str(value)).replace("`", "'").replace("|", "/")
    return f"`{text}`" if text else ""


def _text(value: str) -> str:
    return re.sub(r"[<>\[\]|`*_\\]", " ", re.sub(r"\s+", " ", value))

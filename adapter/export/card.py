"""The model card of an exported adapter: what it is, its terms, its figures, where it is from."""

from __future__ import annotations

import json
from typing import Any

from ...pipeline.errors import UserError
from ...pipeline.files import read_json
from ..results import Results
from ..run import RunFolder

_SHOWN = 20  # class names


def model_card(run: RunFolder, about: dict[str, Any]) -> str:
    """Return the card as Markdown with the metadata that model hubs read."""
    trained, names = about["class_names"], about["all_class_names"]
    head = {
        "library_name": "aape",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["aape", "clip", "adapter"],
        "base_model": str(about["encoder"]).split("@")[0],
        "datasets": [str(about["dataset"])],
    }
    lines = ["---", *_yaml(head), "---", f"# {cell(about['dataset'])}: an adapter of aape", ""]
    lines += [
        f"It tells {len(names):,} classes apart, {len(trained):,} of them trained with"
        f" {cell(about.get('shots'))} photos each, on image features of `{cell(about['encoder'])}`."
        " Any other class can be named, and is judged by its name.",
        "",
        "```",
        "aape predict FOLDER photos/ --also 'another class'",
        "```",
        "",
        "## Terms",
        "A logit is the sum of these terms, each at its weight.",
        "",
        "| term | weight, trained class | weight, other class |",
        "|---|---:|---:|",
    ]
    table = about.get("table") or {}
    lines += [f"| {cell(name)} | {a:.4g} | {b:.4g} |" for name, (a, b) in table.items()]
    lines += ["", "## Classes", _listed(names), ""]
    lines += _figures(run)
    return "\n".join(lines) + "\n" + _provenance(run, about)


def cell(text: Any) -> str:
    """Return a text that stays text in a Markdown table.

    >>> cell("a|b <i>")
    'a\\\\|b &lt;i&gt;'
    """
    from html import escape

    flat = " ".join(str(text).split())
    for sign in ("\\", "|", "`", "[", "]", "*", "_"):
        flat = flat.replace(sign, "\\" + sign)
    return escape(flat, quote=False)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(map(cell, names[:_SHOWN])) + more + "."


def _figures(run: RunFolder) -> list[str]:
    path = run.results_path("classification")
    if not path.exists():
        return []
    try:
        results = Results.load(path)
    except UserError:  # a card is made all the same
        return []
    return ["## Figures", results.to_markdown().strip(), ""]


def _provenance(run: RunFolder, about: dict[str, Any]) -> str:
    lines = [
        "## Origin",
        f"- Protocol: {cell(about.get('protocol', ''))}, seed {cell(about.get('seed'))}.",
    ]
    if about.get("bank_sha256"):
        lines.append(f"- Bank: SHA-256 `{cell(about['bank_sha256'])}`.")
    place = run.path / "environment.json"
    if place.exists():
        packages = read_json(place).get("packages", {})
        told = ", ".join(f"{cell(name)} {cell(version)}" for name, version in packages.items())
        lines.append(f"- Made with: {told}.")
    return "\n".join(lines) + "\n"


def _yaml(head: dict[str, Any]) -> list[str]:
    """Return metadata as YAML: JSON values, which YAML reads."""
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]

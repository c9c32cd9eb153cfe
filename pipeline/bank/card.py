"""The card of a bank: where its prompts come from, as Markdown that a person reads first."""

from __future__ import annotations

import re

from .bank import PromptBank
from .statistics import BankStatistics, bank_statistics

# engines whose texts no language model of ours wrote, and what their version says
_NO_MODEL = {"import": "published file, SHA-256 begins", "waffle": "random texts of version"}
# an underscore between letters or digits is plain text in Markdown, as in "class_name"
_SPECIAL = re.compile(r"(?<![^\W_])_|_(?![^\W_])|[\\`*{}\[\]<>#|~&\"'$\r\n\t]")


def markdown_text(text: str) -> str:
    """Return text that Markdown and HTML show as it is: every special character as an entity.

    ``html.unescape`` gives the text back.
    """
    return _SPECIAL.sub(lambda match: f"&#{ord(match.group())};", text)


def _name(text: str) -> str:
    """A name as a table cell; isolated, so that right-to-left names do not reorder the row."""
    return f"<bdi>{markdown_text(text)}</bdi>"


def bank_card(bank: PromptBank, examples: int = 3) -> str:
    """Return the card: provenance, encoder, counts, and some prompts of some classes."""
    metadata, statistics = bank.metadata, bank_statistics(bank)
    lines = [f"# Prompt bank of {', '.join(_name(part.dataset) for part in metadata.datasets)}", ""]
    lines += [
        f"{statistics.kept} prompts in use, {statistics.rows - statistics.kept} dropped with their "
        f"reason, for {len(statistics.classes)} classes. {_warning(bank)}",
        "",
    ]
    lines += _provenance(bank, statistics)
    lines += ["", "## Verdicts", ""]
    lines += _table(["verdict", "prompts"], [[_name(k), v] for k, v in statistics.verdicts.items()])
    lines += ["", "## Queries", ""]
    if own := metadata.own_queries.queries:
        lines += [
            f"The language model wrote {len(own)} of the queries itself, for photos that were"
            f" described as: {_name(metadata.own_queries.about)}.",
            "",
        ]
    lines += _table(["query", "template", "prompts"], _queries(bank))
    lines += ["", "## Classes", ""]
    lines += _table(
        ["data set", "id", "class", "kept", "dropped"],
        [
            [_name(c.dataset), c.class_id, _name(c.class_name), c.kept, c.rows - c.kept]
            for c in statistics.classes
        ],
    )
    lines += ["", "## Examples", ""]
    for entry in [entry for entry in bank.footer.classes if entry.kept][:examples]:
        name = metadata.of(entry.dataset).class_names[entry.class_id]
        texts = bank.prompts(entry.class_id, dataset=entry.dataset)[:examples]
        lines += [f"**{_name(name)}**", "", *(f"- {_name(text)}" for text in texts), ""]
    return "\n".join(lines).rstrip() + "\n"


def _warning(bank: PromptBank) -> str:
    engines = set(bank.rows(0, len(bank), ["engine"]).column("engine").to_pylist())
    if engines == {"waffle"}:
        return "They are random words and characters: a control, not knowledge."
    return "A language model wrote them: they may be wrong."


def _provenance(bank: PromptBank, statistics: BankStatistics) -> list[str]:
    metadata = bank.metadata
    columns = ["llm", "llm_revision", "engine", "engine_version", "created_at"]
    rows = bank.rows(0, len(bank), columns)
    sources = rows.group_by(columns[:4]).aggregate([]).to_pylist()
    models = [source for source in sources if source["engine"] not in _NO_MODEL]
    dates = sorted(d for d in rows.column("created_at").unique().to_pylist() if d is not None)
    facts: list[tuple[str, str]] = [
        ("language model", "; ".join(" ".join(filter(None, m.values())) for m in models)),
        *((_NO_MODEL[s["engine"]], s["engine_version"]) for s in sources if s not in models),
        ("made", f"{dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}" if dates else ""),
        ("encoder", metadata.encoder_fingerprint),
        ("embedding width", str(metadata.dim)),
        ("preprocessing", metadata.preprocessing),
        (
            "tokens of a prompt",
            f"{statistics.tokens_mean:.1f} on average, {statistics.tokens_max} at most",
        ),
        *((f"manifest of {p.dataset}", p.manifest_hash) for p in metadata.datasets),
        ("tools", ", ".join(f"{k} {v}" for k, v in sorted(metadata.tool_versions.items()))),
        ("schema version", str(metadata.schema_version)),
        ("content hash", bank.content_hash),
    ]
    known = [[markdown_text(name), _name(value)] for name, value in facts if value]
    return ["## Provenance", "", *_table(["what", "value"], known)]


def _queries(bank: PromptBank) -> list[list[object]]:
    columns = ["query_id", "query_template", "verdict"]
    rows = bank.rows(0, len(bank), columns)
    counted = rows.group_by(columns[:2]).aggregate([([], "count_all")]).to_pylist()
    return [[_name(r["query_id"]), _name(r["query_template"]), r["count_all"]] for r in counted]


def _table(head: list[str], rows: list[list[object]] | list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return lines + [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]

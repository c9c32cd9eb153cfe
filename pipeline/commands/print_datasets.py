"""What `aape datasets` prints: the list of data sets and one data set in full."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.text import Text

from .. import terminal
from ..datasets.catalogue import load_manifest, shipped_manifests
from ..datasets.check import where_to_get
from ..datasets.dataset import candidate_roots
from ..datasets.manifest import Manifest
from ..datasets.records import SPLITS
from ..files import write_text

TABLE_BEGIN = "<!-- table: python -m aape.pipeline.commands.print_datasets docs/datasets.md -->"
TABLE_END = "<!-- end of table -->"


def print_list(rows: list[dict[str, Any]]) -> None:
    """Print the rows of :func:`aape.datasets_list`; long licences go on below themselves."""
    out = terminal.output(highlight=False)
    table = terminal.table(out, box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("tasks")
    table.add_column("classes", justify="right", no_wrap=True)
    table.add_column("here", no_wrap=True)
    table.add_column("licence", overflow="fold")
    for row in rows:
        here = "yes" if row["root"] else "-"
        cells = (row["name"], " ".join(row["tasks"]), str(row["classes"] or "-"), here)
        table.add_row(*(Text(cell) for cell in (*cells, row["licence"])))
    out.print(table)


def print_manifest(manifest: Manifest) -> None:
    """Print what one wants to know of a data set before using it."""
    console = terminal.console(highlight=False, soft_wrap=True)
    names = [entry.name for entry in manifest.classes]
    shown = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
    sizes = ", ".join(f"{split} {size:,}" for split, size in manifest.expected().items())
    unit = manifest.splits.unit
    facts = {
        "tasks": ", ".join(manifest.tasks),
        "classes": shown or "none",
        "category": manifest.category,
        "templates": " | ".join(manifest.templates),
        "queries": " | ".join(query.text for query in manifest.queries),
        "splits": f"{sizes} {unit}: {manifest.splits.source}" if sizes else "",
        "layouts": ", ".join(layout.title for layout in manifest.layouts),
        "licence": manifest.licence,
        "homepage": manifest.homepage,
        "get it": where_to_get(manifest),
        "put it in": " or ".join(str(root) for root in candidate_roots(manifest)[:3]),
        "notes": manifest.notes,
    }
    console.print(f"{manifest.name}: {manifest.title}", markup=False)
    for what, text in facts.items():
        if text:
            console.print(f"  {what}: {text}", markup=False)


def markdown_table() -> str:
    """Return the shipped data sets as the Markdown table of ``docs/datasets.md``."""
    lines = [
        "| name | data set | for | classes | train / val / test | layouts | get it | licence |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(shipped_manifests().glob("*.yaml")):
        manifest = load_manifest(path)
        sizes = manifest.expected()
        counts = " / ".join(f"{sizes[split]:,}" if split in sizes else "–" for split in SPLITS)
        cells = [
            f"`{manifest.name}`",
            f"[{manifest.title}]({manifest.homepage})",
            ", ".join(manifest.tasks),
            f"{len(manifest.classes):,}" if manifest.classes else "–",
            f"{counts} {manifest.splits.unit}" if sizes else "–",
            ", ".join(layout.title for layout in manifest.layouts),
            "`fetch`" if manifest.downloads else "by hand",
            manifest.licence,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def update_table(document: Path) -> None:
    """Write the table between its two comment lines in a Markdown file."""
    before, _, rest = document.read_text(encoding="utf-8").partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    write_text(document, f"{before}{TABLE_BEGIN}\n{markdown_table()}\n{TABLE_END}{after}")


if __name__ == "__main__":
    update_table(Path(sys.argv[1]))

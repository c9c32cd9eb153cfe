"""A hook of MkDocs: the API page lists what ``aape/__init__.py`` offers, read from its text.

So a name that is added there is documented without another word, and none is forgotten.
"""

from __future__ import annotations

import ast
from pathlib import Path

MARKER = "<!-- public names -->"
PACKAGE = Path(__file__).resolve().parent.parent


def public_names() -> dict[str, str]:
    """Return each public name and its module, such as ``aape.pipeline.bank``."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    rooms: dict[str, object] = {}
    for node in tree.body:
        if not isinstance(node, ast.Assign):
            continue
        target = node.targets[0]
        words = ast.unparse(target)
        if words == "_PUBLIC":
            # our own file: names and strings
            found = eval(ast.unparse(node.value), {}, dict(rooms))
            return {name: f"aape{module}" for name, module in sorted(found.items())}
        if words.startswith(("_", "(_")):
            values = eval(ast.unparse(node.value), {}, dict(rooms))
            names = [ast.unparse(n) for n in getattr(target, "elts", [target])]
            rooms.update(zip(names, list(values) if len(names) > 1 else [values]))
    raise LookupError("__init__.py has no _PUBLIC")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put one entry a public name where the marker stands."""
    if MARKER not in markdown:
        return markdown
    entries = [f"::: {module}.{name}" for name, module in public_names().items()]
    return markdown.replace(MARKER, "\n\n".join(entries))

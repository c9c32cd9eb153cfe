"""Two hooks of MkDocs for the API page: where the package lies, and what ``import aape`` offers.

The page lists the public names from the package's own table, so a name that is added there is
documented without another word, and none is forgotten.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

import aape

MARKER = "<!-- public names -->"
FOLDER = tempfile.TemporaryDirectory(prefix="aape-docs-")  # removed when the build ends


@event_priority(100)  # before the reader of docstrings is made
def on_config(config: Any) -> Any:
    """Let the reader of docstrings find the package by its name.

    The checkout is the package and may be called anything; the reader looks for a folder ``aape``.
    """
    folder = Path(FOLDER.name)
    (folder / "aape").symlink_to(Path(aape.__file__).parent, target_is_directory=True)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(folder)]
    return config


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put one entry a public name where the marker stands."""
    rooms = sorted(aape._PUBLIC.items())
    entries = [f"::: aape{room}.{name}" for name, room in rooms]
    return markdown.replace(MARKER, "\n\n".join(entries))

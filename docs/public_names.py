"""A hook of MkDocs: the API page lists what ``import aape`` offers.

So a name that is added there is documented without another word, and none is forgotten.
"""

from __future__ import annotations

import aape

MARKER = "<!-- public names -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put one entry a public name where the marker stands."""
    rooms = sorted(aape._PUBLIC.items())
    entries = [f"::: aape{room}.{name}" for name, room in rooms]
    return markdown.replace(MARKER, "\n\n".join(entries))

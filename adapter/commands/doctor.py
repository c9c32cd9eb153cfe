"""aape doctor: what works on this machine."""

from __future__ import annotations

import typer

from ...pipeline.commands.options import AsJson, print_json
from ...pipeline.terminal import echo

app = typer.Typer()
_SIGNS = {"works": "works ", "absent": "absent", "broken": "BROKEN"}


@app.command("doctor")
def doctor_verb(as_json: AsJson = False) -> None:
    """Say what works on this machine, and how to mend what does not. Exit status 1: something.

    Example: aape doctor --json
    """
    from ..doctor import findings

    found = []
    for one in findings():
        found.append(one)
        if as_json:
            continue
        echo(f"{_SIGNS[one.state]}  {one.name}: {one.detail}")
        if one.mend:
            echo(f"        {one.mend}")
    if as_json:
        print_json([one.as_dict() for one in found])
    if any(one.state == "broken" for one in found):
        raise typer.Exit(1)

"""aape options: what every setting means."""

from __future__ import annotations

from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, print_json
from ...pipeline.terminal import echo

app = typer.Typer()


@app.command("options")
def options(
    section: Annotated[
        str,
        typer.Argument(help="recipe, generation.sampling, recipe.lr …, a word in names; or all."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Explain the settings of --config and --set: values, default, meaning.

    Example: aape options recipe; then aape train --bank BANK --set recipe.convex.folds=8
    """
    import json

    from ..options import options as list_options

    rows = list_options(section)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        default = row["default"]
        shown = default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)
        echo(f"{row['name']} = {shown or chr(34) * 2}")
        meaning = f"{row['meaning']}; " if row["meaning"] else ""
        echo(f"    {meaning}{row['values']}")

"""aape push and aape pull: runs and banks to a model hub and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.commands.options import AsJson, print_json
from ...pipeline.terminal import echo

app = typer.Typer()
Repository = Annotated[str, typer.Argument(help="OWNER/NAME at the hub of HF_ENDPOINT.")]


@app.command("push")
def push_verb(
    thing: Annotated[Path, typer.Argument(help="A run folder, or a bank.")],
    repository: Repository,
    private: Annotated[bool, typer.Option("--private", help="For yourself alone.")] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "",
    as_json: AsJson = False,
) -> None:
    """Push a run or a bank to a model hub, with a card and checksums.

    Example: aape push runs/products me/products-adapter
    """
    from ..share import push

    done = push(thing, repository, private=private, message=message)
    if as_json:
        print_json(done.as_dict())
    else:
        echo(done.place)


@app.command("pull")
def pull_verb(
    repository: Repository,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A new folder.")] = None,
    kind: Annotated[str, typer.Option(help="run or bank, if both are there.")] = "",
    revision: Annotated[str, typer.Option(help="A branch, tag or commit.")] = "",
    max_gigabytes: Annotated[float, typer.Option(min=0, help="More is refused.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Pull a run or a bank that somebody pushed; every file by its checksum, none of it code.

    Example: aape pull me/products-adapter --out products
    """
    from ..share import pull

    done = pull(
        repository,
        out,
        kind=kind,  # type: ignore[arg-type]
        revision=revision,
        max_gigabytes=max_gigabytes,
    )
    if as_json:
        print_json(done.as_dict())
    else:
        echo(done.place)

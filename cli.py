"""The command line: parse, call the public function of the same name, print. Nothing else.

Heavy imports stay inside the verbs, so that ``aape --help`` is instant.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: F401
from typing import Annotated, Any  # noqa: F401

import typer

app = typer.Typer(
    name="aape",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Adapt CLIP-like models to your own images with what language models know about them.",
)


def print_json(value: Any) -> None:
    """Print a value for other programs: one JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def main() -> None:
    """Run the command line: a :class:`UserError` is one clear sentence and exit status 2."""
    from .pipeline.errors import UserError

    try:
        app(standalone_mode=True)
    except UserError as error:
        typer.secho(f"aape: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("aape: interrupted; run the same command again to go on.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()

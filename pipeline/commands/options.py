"""Options that many verbs share, and how a value is printed for programs."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ..errors import UserError
from ..files import finite

Checkpoint = Annotated[str, typer.Option(help="Local weights of the run's encoder.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at a photo that cannot be read; else it is left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


def print_json(value: Any) -> None:
    """Print a value for other programs: one JSON document on standard output."""
    typer.echo(json.dumps(finite(value), indent=2, ensure_ascii=False, default=str))


def words_of(text: str) -> list[str]:
    """Split a comma-separated option."""
    return [word.strip() for word in text.split(",") if word.strip()]


def whole_numbers(text: str, option: str) -> list[int]:
    """Split a comma-separated option into numbers."""
    try:
        return [int(word) for word in words_of(text)]
    except ValueError as error:
        raise UserError(f"{option} takes whole numbers, not {text!r}.", "Write 1,2,3.") from error

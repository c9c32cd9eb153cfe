"""Options that many verbs share, and how a value is printed for programs."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from ..errors import UserError
from ..terminal import echo, json_text

Checkpoint = Annotated[str, typer.Option(help="Local weights of the run's encoder.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at a photo that cannot be read; else it is left out.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


Config = Annotated[
    Path | None,
    typer.Option("--config", help="YAML of settings, such as the config.yaml of a run."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="One setting (see aape options); may be repeated."
    ),
]


def plain(value: Any) -> Any:
    """Return what verbs return as lists and dicts, as ``--json`` prints it."""
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if isinstance(value, BaseModel):
        return value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value


def print_json(value: Any) -> None:
    """Print a value for other programs: one JSON document on standard output."""
    echo(json_text(plain(value), indent=2))


def words_of(text: str) -> list[str]:
    """Split a comma-separated option."""
    return [word.strip() for word in text.split(",") if word.strip()]


def whole_numbers(text: str, option: str) -> list[int]:
    """Split a comma-separated option into numbers."""
    try:
        return [int(word) for word in words_of(text)]
    except ValueError as error:
        raise UserError(f"{option} takes whole numbers, not {text!r}.", "Write 1,2,3.") from error

"""What an engine is: requests in, answers out, in small groups that are worth keeping."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, Protocol

from typing_extensions import Self

from ..requests import Request

# Structured output, where it is asked for: one sentence in a named field.
DESCRIPTION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"description": {"type": "string"}},
    "required": ["description"],
    "additionalProperties": False,
}
# The queries that a language model writes by itself: a list of them in a named field.
QUERIES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "queries": {"type": "array", "items": {"type": "string"}, "minItems": 3, "maxItems": 20}
    },
    "required": ["queries"],
    "additionalProperties": False,
}


def schema_of(request: Request) -> tuple[str, dict[str, Any]]:
    """Return name and schema of the form that a structured answer to a request has."""
    if request.kind == "queries":
        return "queries", QUERIES_SCHEMA
    return "description", DESCRIPTION_SCHEMA


# The string of the field, with its end or without; an escape that was cut off is left out.
_STRUCTURED = re.compile(r'\s*\{\s*"description"\s*:\s*"((?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*)')


@dataclass(frozen=True, slots=True)
class Answer:
    """What the language model wrote for the request ``key``, word for word.

    ``finish_reason`` is ``stop`` (the model ended it), ``length`` (``max_tokens`` did) or what the
    engine calls it; ``created_at`` is UTC in ISO 8601.
    """

    key: str
    text: str
    finish_reason: str
    n_tokens: int
    engine: str
    engine_version: str
    created_at: str

    def to_json(self) -> dict[str, Any]:
        """Return the answer as JSON-able values."""
        return asdict(self)


class Engine(Protocol):
    """A language model that answers requests.

    ``generate`` yields each group of answers as soon as it is finished, every request answered
    exactly once, in any order. A text depends on its request alone. An engine is a context manager:
    leaving it frees the memory of the model.
    """

    name: str
    version: str

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Answer]]:
        """Answer the requests.

        Raises:
            UserError: the engine cannot go on; what was yielded before is good.
        """
        ...

    def close(self) -> None:
        """Free the model. Calling it twice does no harm."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class ClosingEngine:
    """The context manager part of an engine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the model."""


def now() -> str:
    """Return the time of an answer: UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def unwrap(text: str) -> str:
    """Return the description inside a structured answer, or the answer itself.

    Of an answer that was cut off, what there is of the description counts.

    >>> unwrap('{"description": "A red car. It'), unwrap("A red car.")
    ('A red car. It', 'A red car.')
    """
    found = _STRUCTURED.match(text)
    if found is None:
        return text
    try:
        return json.loads(f'"{found.group(1)}"', strict=False)
    except json.JSONDecodeError:
        return text

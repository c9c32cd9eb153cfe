"""The log of answers beside a bank: what a language model wrote is paid for once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..record_log import RecordLog
from .engines.base import Answer


class AnswerLog(RecordLog[Answer]):
    """Answers by request key. One process at a time may append: hold the lock of the folder."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, lambda _, answer: answer.to_json(), _answer)

    def append(self, answers: Sequence[Answer]) -> None:
        """Keep answers; those that are here already are not written again.

        Raises:
            UserError: the disk is full or the folder cannot be written to.
        """
        self.add({answer.key: answer for answer in answers})


def _answer(row: Any) -> tuple[str, Answer] | None:
    """Return an answer, or nothing where its parts are not what they should be.

    Earlier versions kept what a server said as it was, a list for a number of tokens for instance.
    """
    try:
        answer = Answer(**row)
    except TypeError:
        return None
    words = (answer.key, answer.text, answer.finish_reason, answer.engine, answer.engine_version,
             answer.created_at)  # fmt: skip
    counted = type(answer.n_tokens) is int and 0 <= answer.n_tokens < 2**31
    return (answer.key, answer) if counted and all(isinstance(w, str) for w in words) else None

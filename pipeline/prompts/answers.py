"""The log of answers beside a bank: what a language model wrote is paid for once.

A folder of small files, each written whole or not at all and named after its content, so that a
kill loses nothing that was finished and a damaged file is noticed and asked for again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ..files import atomic_path
from ..progress import step
from .engines.base import Answer

_MERGE_ABOVE = 64


class AnswerLog:
    """Answers by request key. One process at a time may append: hold the lock of the folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._answers: dict[str, Answer] = {}
        self._next = 0
        for path in self._files():
            self._next = int(path.stem.split("-")[0]) + 1
            for answer in _read(path):
                self._answers.setdefault(answer.key, answer)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def __len__(self) -> int:
        return len(self._answers)

    def append(self, answers: Sequence[Answer]) -> None:
        """Keep answers; those that are here already are not written again.

        Raises:
            UserError: the disk is full or the folder cannot be written to.
        """
        new = {answer.key: answer for answer in answers if answer.key not in self._answers}
        if new:
            self._write(list(new.values()))
            self._answers.update(new)

    def merge(self) -> None:
        """Join many small files into one. A crash in between leaves answers twice, never lost."""
        files = self._files()
        if len(files) > _MERGE_ABOVE:
            self._write(list(self._answers.values()))
            for path in files:
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*-*.jsonl"))

    def _write(self, answers: Sequence[Answer]) -> None:
        # ASCII only: an answer may hold anything, half a surrogate pair too
        text = "".join(json.dumps(answer.to_json()) + "\n" for answer in answers)
        name = f"{self._next:06d}-{_digest(text)}.jsonl"
        with atomic_path(self.folder / name) as temporary:
            temporary.write_text(text, encoding="ascii")
        self._next += 1


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def _read(path: Path) -> list[Answer]:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest()[:16] != path.stem.split("-")[1]:
        step(f"{path} is damaged; its answers are asked for again.")
        path.unlink()
        return []
    answers = [_answer(line) for line in data.decode("ascii").splitlines()]
    good = [answer for answer in answers if answer is not None]
    if len(good) < len(answers):
        step(f"{path}: {len(answers) - len(good):,} answers are malformed and are asked for again.")
    return good


def _answer(line: str) -> Answer | None:
    """Return an answer, or nothing where its parts are not what they should be.

    Earlier versions kept what a server said as it was, a list for a number of tokens for instance.
    """
    try:
        answer = Answer(**json.loads(line))
    except (TypeError, ValueError, RecursionError):
        return None
    words = (answer.key, answer.text, answer.finish_reason, answer.engine, answer.engine_version,
             answer.created_at)  # fmt: skip
    counted = type(answer.n_tokens) is int and 0 <= answer.n_tokens < 2**31
    return answer if counted and all(isinstance(word, str) for word in words) else None

"""A language model that needs no weights: shared by all tests."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

from aape.pipeline.errors import UserError
from aape.pipeline.prompts.engines.base import Answer, ClosingEngine
from aape.pipeline.prompts.requests import Request

_WORDS = ["grey", "white", "round", "small", "tall", "old", "wooden", "bright", "heavy", "smooth"]


class FakeEngine(ClosingEngine):
    """Writes a text that follows from the request's seed; some are not worth keeping."""

    name, version = "fake", "1"

    def __init__(self, pause: float = 0.0, fail_after: int = -1) -> None:
        self.pause, self.fail_after = pause, fail_after
        self.asked: list[str] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Answer]]:
        for start in range(0, len(requests), 5):
            group = requests[start : start + 5]
            if 0 <= self.fail_after <= len(self.asked):
                raise UserError("The fake engine fails.")
            self.asked += [request.key for request in group]
            time.sleep(self.pause)
            yield [self._answer(request) for request in group]

    def _answer(self, request: Request) -> Answer:
        source = random.Random(request.seed)
        words = ", ".join(source.sample(_WORDS, 3))
        text = f"The {request.class_name} is {words}. It is"
        if source.random() < 0.2:
            text = "I'm sorry, I cannot do that."
        when = "2026-01-01T00:00:00+00:00"
        return Answer(request.key, text, "length", 9, self.name, self.version, when)

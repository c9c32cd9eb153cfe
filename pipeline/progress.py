"""What a user sees while long work goes on: a bar with time left, or one line a step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import TimeRemainingColumn as TimeLeft

from .terminal import console

T = TypeVar("T")
_LINE_EVERY = 30.0  # seconds; where nobody watches, a bar cannot be drawn over

_console = console(stderr=True)  # whatever standard error is by then
_start = time.monotonic()
_times = False


def speak(*, quiet: bool = False, times: bool = False) -> None:
    """Say nothing at all on standard error, or put before each step when it was said."""
    global _times
    _console.quiet = quiet
    _times = times


@contextmanager
def hushed() -> Iterator[None]:
    """Say nothing on standard error for a while."""
    before = _console.quiet
    _console.quiet = True
    try:
        yield
    finally:
        _console.quiet = before


class _Bar(Progress):
    """A bar; where standard error is no terminal, a line every half a minute and the bar at last.

    rich alone would be silent there until the work ends.
    """

    _said = 0.0

    def start(self) -> None:
        """Begin to show it."""
        self._said = time.monotonic()
        super().start()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Move on by so many steps."""
        super().advance(task_id, advance)
        self._say_where()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change what is shown of a task."""
        super().update(task_id, **changes)
        self._say_where()

    def _say_where(self) -> None:
        if self.console.is_terminal or time.monotonic() - self._said < _LINE_EVERY:
            return
        self._said = time.monotonic()
        for task in self.tasks:
            if not task.finished:
                step(where(task))


def where(task: Task) -> str:
    """Return how far a task is, how long it took, and how long it will, as one line."""
    done = f"{task.completed:,.0f}" + (f"/{task.total:,.0f}" if task.total else "")
    said = f"{task.description} {done}, {_clock(task.elapsed or 0)} elapsed"
    left = task.time_remaining
    return said if left is None else f"{said}, {_clock(left)} left"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def bar() -> Progress:
    """Return a progress display on standard error: description, bar, count, elapsed, time left."""
    return _Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeft(),
        console=_console,
        refresh_per_second=2,
    )


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items under a progress bar."""
    with bar() as progress:
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        yield from progress.track(items, total=total, description=description)


def step(message: str) -> None:
    """Print one line about what is going on, on standard error."""
    if _times:
        message = f"{time.monotonic() - _start:7.1f} s  {message}"
    _console.print(message, highlight=False, markup=False, soft_wrap=True)

"""What a user sees while long work goes on: a bar with time left, or one line a step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeft

from .terminal import console

T = TypeVar("T")

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


def bar() -> Progress:
    """Return a progress display on standard error: description, bar, count, elapsed, time left."""
    return Progress(
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

"""One step of a benchmark in a process of its own: seconds, and the most memory that it had.

Seconds are those of the processor, of all threads: other work on the machine changes them little.
Those of the clock, which it changes much, and waiting for the disk too, are kept beside them.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_EVERY = 0.02  # seconds
Figures = dict[str, float]


class Watch:
    """Seconds and peak memory of named pieces of work.

    Memory is told apart: what a process holds of its own (``RssAnon``), and all that is resident,
    pages of mapped files included, which the system takes back when others need them.
    """

    def __init__(self) -> None:
        self.figures: Figures = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        done, peaks, watching = threading.Event(), [0.0, 0.0], [0.0]

        def sample() -> None:
            while not done.wait(_EVERY):
                peaks[:] = map(max, peaks, memory())
            watching[0] = time.thread_time()  # is no part of the work

        thread = threading.Thread(target=sample, daemon=True)
        peaks[:] = memory()
        start, clock = time.process_time(), time.perf_counter()
        thread.start()
        try:
            yield
        finally:
            waited = time.perf_counter() - clock
            done.set()
            thread.join()
            seconds = time.process_time() - start - watching[0]
            own, resident = map(max, peaks, memory())
            self.figures |= {f"{name}, s": seconds, f"{name}, clock s": waited}
            self.figures[f"{name}, own GiB"] = own
            self.figures[f"{name}, resident GiB"] = resident


def memory() -> tuple[float, float]:
    """Return what this process holds of its own, and all that is resident, in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    own = int(found["RssAnon"])
    return own / 2**20, (own + int(found["RssFile"]) + int(found["RssShmem"])) / 2**20


def apart(step: Callable[..., Any], *words: Any) -> Any:
    """Run a step in a fresh process, so that its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(step, words)

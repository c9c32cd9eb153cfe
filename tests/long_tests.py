"""Which tests are too long for the inner loop: those that start a process, and those on a list.

The list names test functions that took more than half a second of processor time when they were
last measured, all their cases together. ``AAPE_WRITE_LONG=1 python -m pytest …`` measures again
what it runs; what it does not run stays as it is.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Generator, Iterable

import pytest
from places import TESTS

LIST = TESTS / "long_tests.txt"
SECONDS = 0.5
WRITE = os.environ.get("AAPE_WRITE_LONG") == "1"


def listed() -> list[str]:
    """Return the names on the list, as ``adapter/test_predict.py::test_photos_get_labels``."""
    return LIST.read_text(encoding="utf-8").split()


def name_of(item: pytest.Item) -> str:
    """Return the name of a test function, whatever its case."""
    place = item.path.relative_to(TESTS).as_posix()
    return "::".join([place, *item.nodeid.split("[")[0].split("::")[1:]])


def mark_long(items: Iterable[pytest.Item]) -> None:
    """Give the marker ``long`` to what `make quick` leaves out."""
    long = frozenset(listed())
    for item in items:
        starts_a_process = "aape" in getattr(item, "fixturenames", ())
        if starts_a_process or name_of(item) in long:
            item.add_marker("long")


class Stopwatch:
    """Measures test functions in processor time, of children too, and writes the list."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Time one case."""
        start = processor_seconds()
        try:
            return (yield)
        finally:
            self.seconds[name_of(item)] += processor_seconds() - start

    def pytest_sessionfinish(self) -> None:
        """Write the list, sorted."""
        kept = {name for name in listed() if name not in self.seconds}
        long = kept | {name for name, spent in self.seconds.items() if spent > SECONDS}
        LIST.write_text("".join(f"{name}\n" for name in sorted(long)), encoding="utf-8")


def processor_seconds() -> float:
    """Return the processor time of this process and of the children it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime

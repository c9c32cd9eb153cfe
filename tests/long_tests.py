"""Which tests are too long for the inner loop: those that start a process, and those on a list.

The list names test functions that took more than a quarter of a second of processor time when they
were last measured, all their cases together, and fixtures that several tests share and that took as
much: no test that needs one is short. ``AAPE_WRITE_LONG=1 python -m pytest …`` measures again what
it runs; what it does not run stays as it is.
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
SECONDS = 0.25
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
        place = item.path.relative_to(TESTS).as_posix()
        needs = getattr(item, "fixturenames", ())
        names = {name_of(item), *(f"{place}::{fixture}" for fixture in needs)}
        if "aape" in needs or names & long:  # that fixture starts a process
            item.add_marker("long")


class Stopwatch:
    """Measures test functions in processor time, of children too, and writes the list."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.shared = 0.0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Time one case."""
        start, self.shared = processor_seconds(), 0.0
        try:
            return (yield)
        finally:
            self.seconds[name_of(item)] += processor_seconds() - start - self.shared

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object]
    ) -> Generator[None, object, object]:
        """Time a shared fixture by itself: the first test that needs it has done no more."""
        start = processor_seconds()
        try:
            return (yield)
        finally:
            if fixturedef.scope != "function":
                spent = processor_seconds() - start
                self.shared += spent
                place = fixturedef.baseid.partition("tests/")[2]
                self.seconds[f"{place}::{fixturedef.argname}"] += spent

    def pytest_sessionfinish(self) -> None:
        """Write the list, sorted."""
        kept = {name for name in listed() if name not in self.seconds}
        found = {name for name, spent in self.seconds.items() if spent > SECONDS}
        long = kept | {name for name in found if not name.startswith("::")}
        LIST.write_text("".join(f"{name}\n" for name in sorted(long)), encoding="utf-8")


def processor_seconds() -> float:
    """Return the processor time of this process and of the children it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime

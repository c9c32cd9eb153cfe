"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from long_tests import WRITE, Stopwatch, mark_long
from places import REPOSITORY

# a crowded machine is slow, not wrong: tests assert no timings
settings.register_profile("aape", deadline=None)
settings.load_profile("aape")


def pytest_configure(config: pytest.Config) -> None:
    """Measure what is too long for the inner loop, if that is asked for."""
    if WRITE:
        config.pluginmanager.register(Stopwatch())


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make quick` leaves out."""
    mark_long(items)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real test data; the test is skipped where it is absent."""
    folder = Path(os.environ.get("AAPE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "README.md").exists():
        pytest.skip(f"real test data not found at {folder}; set AAPE_TEST_DATA")
    return folder


@pytest.fixture
def aape() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a user does, in a process of its own."""

    def run(*arguments: str | Path, timeout: float = 300, **options) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "aape.cli", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, **options
        )

    return run

"""Every example in a docstring is run, and a module that loses its last one is noticed."""

from __future__ import annotations

import doctest
import importlib

import pytest
from places import REPOSITORY

WITH_EXAMPLES = [
    ".".join(["aape", *path.relative_to(REPOSITORY).with_suffix("").parts])
    for floor in ("pipeline", "adapter")
    for path in sorted((REPOSITORY / floor).rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) >= 14

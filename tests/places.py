"""Where the tests find the repository, themselves and the golden files."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent
GOLDEN = TESTS / "golden"
